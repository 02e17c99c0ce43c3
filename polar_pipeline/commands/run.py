"""`polar run`: one line per language as it finishes, the table at the end, and where everything lies."""

import os
import time

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.backbones.base import training_fingerprint
from polar_pipeline.backbones.imported import ImportedBackbone
from polar_pipeline.backbones.lora.early import check_early
from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.decision.record import Decision
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.runner import Outcome, run_languages, run_report
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import ImportedSettings, LoraSettings
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.record import read_record
from polar_pipeline.synthesis.client import check_endpoint
from polar_pipeline.task.languages import language


def run_pipeline(project: Project, profile: str, codes: list[str], processes: int, resume: bool) -> int:
    """Run languages and then the report. Returns the exit code: 0, or 2 for bad input, or 1 for anything else that failed."""
    project.data  # noqa: B018 - fails here, before anything is written, when there is no data
    for settings in project.profile.backbones:
        if isinstance(settings, LoraSettings):
            check_early(settings)
    started = time.perf_counter()
    done = {code: decision for code in codes if resume and (decision := finished(project, code))}
    wanted = [code for code in codes if code not in done]
    if wanted:
        _check_endpoint(project)
    if done:
        click.echo(f"finished before: {', '.join(done)}")
    outcomes = _run(project, profile, wanted, processes) if wanted else []
    done |= {outcome.language: outcome.decision for outcome in outcomes if outcome.language and outcome.decision}
    failed = [outcome for outcome in outcomes if outcome.error]
    if done:
        report = run_report(project)
        failed += [report] if report.error else []
        _print_table([done[code] for code in codes if code in done], project.card.label.positive)
        _print_places(project, report, time.perf_counter() - started)
    for outcome in failed:
        click.echo(f"polar: {outcome.language or outcome.job}: {outcome.error}", err=True)
    if not failed:
        return 0
    return 2 if all(outcome.bad_input for outcome in failed) else 1


def default_jobs(profile: Profile) -> int:
    """Languages at a time: one per core; one alone where a GPU is used, because each process would load the models again."""
    if any(isinstance(entry, LoraSettings) and entry.device != "cpu" for entry in profile.backbones):
        import torch

        if torch.cuda.is_available():
            return 1
    return os.cpu_count() or 1


def _check_endpoint(project: Project) -> None:
    """A missing key is said before the first language starts, not by each of them."""
    profile = project.profile
    if profile.synthesis.source == "endpoint" or profile.curation.asks_endpoint:
        check_endpoint(profile.synthesis.base_url)


def finished(project: Project, code: str) -> Decision | None:
    """The language's decision, if it was made with these settings from these posts and its predictions are there."""
    path = project.home.artifacts / "thresholds" / f"{code}.json"
    if not path.exists() or not project.home.predictions(code).exists():
        return None
    try:
        decision = read_record(path, Decision)
    except InputError:  # of another version: not finished, whatever it says
        return None
    posts = assign_folds(read_posts(project.data, code, project.card), project.profile.folds, project.profile.seed)
    same = (project.profile.fingerprint, training_fingerprint(posts, project.card))
    if same != (decision.profile_fingerprint, decision.posts_fingerprint) or not _same_files(project, code):
        return None
    return decision


def _same_files(project: Project, code: str) -> bool:
    """Whether the imported scores that a language was decided with are still those in their files."""
    artifacts = project.home.artifacts
    for settings in project.profile.backbones:
        if isinstance(settings, ImportedSettings):
            ref = read_record(artifacts / f"{settings.name}_adapter" / f"{code}.json", AdapterRef)
            if not ImportedBackbone(settings).is_current(ref, artifacts / "adapters"):
                return False
    return True


def _run(project: Project, profile: str, codes: list[str], processes: int) -> list[Outcome]:
    """Run languages, a line each with the rate and the time left."""
    click.echo(
        f"{len(codes)} languages, {min(processes, len(codes))} at a time, profile {project.profile.name}, home {project.home.root}"
    )
    started, outcomes = time.perf_counter(), []
    try:
        for outcome in run_languages(project, profile, codes, processes):
            outcomes.append(outcome)
            click.echo(_line(outcome, len(outcomes), len(codes), time.perf_counter() - started))
    except KeyboardInterrupt:
        click.echo(
            f"{len(outcomes)} of {len(codes)} languages are done; the same command with --resume goes on with the rest.",
            err=True,
        )
        raise
    return outcomes


def _line(outcome: Outcome, count: int, total: int, seconds: float) -> str:
    rate = count / seconds
    left = f", about {(total - count) / rate:.0f} s left" if count < total else ""
    if outcome.decision is None:
        result = f"FAILED: {outcome.error}"
    else:
        estimate = outcome.decision.out_of_fold
        result = f"macro-F1 {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}] out of fold"
    return f"[{count}/{total}] {outcome.language}  {result}  ({60 * rate:.1f} languages/min{left})"


def _print_table(decisions: list[Decision], positive: str) -> None:
    table = Table(
        title="Macro-F1 out of fold, with its 95% interval",
        title_justify="left",
        box=SIMPLE_HEAD,
        collapse_padding=True,
    )
    for column in ("language", "", "posts", positive, "macro-F1", "interval", "threshold"):
        table.add_column(column, justify="left" if column in ("language", "") else "right", no_wrap=True)
    for decision in decisions:
        estimate = decision.out_of_fold
        table.add_row(
            decision.language, language(decision.language).name, str(estimate.posts), f"{decision.positives:.1%}",
            f"{estimate.value:.4f}", f"{estimate.low:.3f} - {estimate.high:.3f}", f"{decision.threshold:.3f}",
        )  # fmt: skip
    mean = sum(decision.out_of_fold.value for decision in decisions) / len(decisions)
    table.add_section()
    table.add_row("mean", f"of {len(decisions)}", "", "", f"{mean:.4f}", "", "")
    Console().print(table)


def _print_places(project: Project, report: Outcome, seconds: float) -> None:
    home = project.home
    click.echo(f"{seconds:.0f} s in all")
    click.echo(f"predictions  {home.root / 'predictions'}")
    if not report.error:
        click.echo(f"submission   {home.submission}")
        click.echo(f"report       {home.report}")
    click.echo("the runs     `polar ui` opens Dagster and MLflow over this home")
