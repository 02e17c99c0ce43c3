"""`polar run`: what is not current and why, one line per language as it finishes, the table at the end, and where
everything lies.
"""

import csv
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click

from polar_pipeline.backbones.lora.loading import check_model_settings
from polar_pipeline.commands.printing import new_table, print_table, say_reasons
from polar_pipeline.commands.watch import RunWatch
from polar_pipeline.curation.embedding import encoding_of
from polar_pipeline.decision.record import Decisions
from polar_pipeline.defs.assets.evidence import current_languages
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.nodes import ACROSS
from polar_pipeline.defs.processes.runner import Outcome, run_languages, run_report
from polar_pipeline.defs.project import Project, claim_results
from polar_pipeline.endpoint.connection import check_endpoint
from polar_pipeline.errors import ExitCode, InputError
from polar_pipeline.pretrained.model_files import check_source, local_folder
from polar_pipeline.settings.backbones import EncoderSettings, LoraSettings, PretrainedSettings
from polar_pipeline.settings.models import Encoding
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.lock import writing
from polar_pipeline.synthesis.from_file import check_path
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.languages import language


def run_pipeline(project: Project, codes: list[str], processes: int | None, force: bool) -> int:
    """Make whatever is not current of these languages, and then the report and the submission. Returns the exit code.

    0: everything is there; 1: some of the languages failed, or are missing from the submission; 2: all failed by bad
    input; 3: some failed because the machine or the home is broken.
    """
    project.data  # noqa: B018 - fails here, before anything is written, when there is no data
    for settings in project.profile.backbones:
        if isinstance(settings, LoraSettings):
            check_model_settings(settings)
        elif isinstance(settings, EncoderSettings):
            check_source(settings.source)
    # a scheduler that ends the run ends its workers too; only a main thread may say so
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with writing(project.home, project.profile.name):
        claim_results(project)
        return _run_and_report(project, codes, processes, force)


def _fetch_encoders(project: Project, assets: set[str]) -> None:
    """Download what these assets embed with, before several processes ask for it."""
    encodings: dict[str, Encoding | None] = {
        f"{entry.name}_adapter": entry.encoding
        for entry in project.profile.backbones
        if isinstance(entry, EncoderSettings)
    }
    encodings["deduped_posts"] = encoding_of(project.profile.curation.embedder)
    for asset, encoding in encodings.items():
        if encoding and asset in assets:
            local_folder(encoding.source, project.home.bases, click.echo)


def _run_and_report(project: Project, codes: list[str], processes: int | None, force: bool) -> int:
    started, lineage = time.perf_counter(), Lineage(project)
    stale = {
        code: list(assets) for code in codes if (assets := lineage.language_assets if force else lineage.stale(code))
    }
    _say_what_is_stale(lineage, codes, stale, force)
    _fetch_encoders(project, {asset for assets in stale.values() for asset in assets})
    failed = _run(project, stale, processes or _default_jobs(project.profile), force) if stale else []
    failed += _run_report(project, force or bool(failed))
    missing = _print_results(project, codes, time.perf_counter() - started)
    for outcome in failed:
        click.echo(f"polar: {outcome.language or outcome.job}: {outcome.error}", err=True)
    return exit_code(project, codes, failed, missing)


def _default_jobs(profile: Profile) -> int:
    """Languages at a time: one per core; one alone where a GPU is used, because each process would load the models
    again. Only asked where there is work, because it may import torch.
    """
    if any(isinstance(entry, PretrainedSettings) and entry.device != "cpu" for entry in profile.backbones):
        import torch

        if torch.cuda.is_available():
            return 1
    return available_cores()


def available_cores(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Cores that this process may use: the machine's, less what CPU affinity and quotas of its cgroups leave out."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for folder in _cgroup_folders(groups, own):
        for names in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):  # version 2, version 1
            try:
                quota, period = " ".join((folder / name).read_text() for name in names).split()
                cores = min(cores, max(int(int(quota) / int(period)), 1)) if int(quota) > 0 else cores
            except (OSError, ValueError, ZeroDivisionError):  # no such group, or no limit ("max")
                continue
    return cores


def _cgroup_folders(groups: Path, own: Path) -> Iterator[Path]:
    """The folders of this process's cgroups and of those around them: each may have a quota."""
    yield from (groups, groups / "cpu")
    try:
        lines = own.read_text().splitlines()
    except OSError:  # not on Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            root = groups / "cpu" if controllers else groups
            yield from (root / folder for folder in (path.strip("/"), *map(str, Path(path.strip("/")).parents)))


def _say_what_is_stale(lineage: Lineage, codes: list[str], stale: dict[str, list[str]], force: bool) -> None:
    """How many languages are current, and why the others are not; languages with the same reasons share a line."""
    if force:
        click.echo(f"{len(codes)} languages are computed again, as --force asks")
        return
    click.echo(f"{len(codes) - len(stale)} of {len(codes)} languages are current")
    say_reasons(lineage.shared_reasons(stale))


def _run(project: Project, stale: dict[str, list[str]], processes: int, force: bool) -> list[Outcome]:
    """Run languages, a line each with the rate and the time left. Returns those that failed."""
    synthesis = project.profile.synthesis
    for endpoint in project.profile.endpoints:
        check_endpoint(endpoint)  # a missing key is said once, and not by each language
    if synthesis.source == "file":
        check_path(project.synthesis(next(iter(stale))))
    jobs = min(processes, len(stale))
    click.echo(f"{len(stale)} languages, {jobs} at a time, profile {project.profile.name}, home {project.home.root}")
    rows = {code: _count_rows(project.data, code) for code in stale}
    failed: list[Outcome] = []
    with RunWatch(rows, jobs) as watch:
        try:
            for event in run_languages(project, stale, processes, force):
                if not isinstance(event, Outcome):
                    watch.progress(event)
                    continue
                failed += [event] if event.error else []
                decided = event.language and not event.error
                watch.finished(event, Lineage(project).read("thresholds", event.language) if decided else None)
        except KeyboardInterrupt:
            click.echo(
                f"{watch.done} of {len(stale)} languages are done; the same command goes on with the rest.", err=True
            )
            raise
    return failed


def _run_report(project: Project, force: bool) -> list[Outcome]:
    """Make the report and the submission where they are not current, and say why. Returns what failed."""
    lineage = Lineage(project)
    reasons = {name: lineage.why_not_current(name, None) for name in ACROSS}
    if not force and not any(reasons.values()):
        return []
    for name, found in reasons.items():
        if found and found != ["not made yet"] and not any("output" in reason for reason in found):
            click.echo(f"  {name}: {'; '.join(found[:3])}")
    try:
        current_languages(project)
    except InputError:  # every language failed, and that is said for each of them
        return []
    report = run_report(project, force)
    return [report] if report.error else []


def _count_rows(folder: Path, code: str) -> int:
    """Posts of a language in all splits; a file that cannot be read counts as none, and its language says why."""
    count = 0
    for path in (folder / split / f"{code}.csv" for split in ("train", "dev", "test")):
        if path.is_file():
            with path.open(newline="", encoding="utf-8", errors="replace") as file:
                count += max(sum(1 for _ in csv.reader(line.replace("\0", "") for line in file)) - 1, 0)
    return max(count, 1)


def exit_code(project: Project, codes: list[str], failed: list[Outcome], missing: list[str]) -> ExitCode:
    """How a run over `codes` ends; says what is `missing` from the submission, and how to finish it."""
    if missing:
        named = " ".join(f"--language {code}" for code in missing)
        where = shlex.join(["--profile", project.source, "--home", str(project.home.root)])
        click.echo(f"polar: not in the submission: {', '.join(missing)}; finish them with", err=True)
        click.echo(f"  polar run {named} {where}", err=True)
    if not failed and not missing:
        return ExitCode.DONE
    kinds = {outcome.exit_code for outcome in failed}
    if ExitCode.BROKEN_ENVIRONMENT in kinds:  # what else failed may have failed for the same reason
        return ExitCode.BROKEN_ENVIRONMENT
    all_failed = len([outcome for outcome in failed if outcome.language]) == len(codes)
    return ExitCode.WRONG_INPUT if all_failed and kinds == {ExitCode.WRONG_INPUT} else ExitCode.SOME_FAILED


def _print_results(project: Project, codes: list[str], seconds: float) -> list[str]:
    """The table and the places. Returns the requested languages that the submission lacks."""
    try:
        present, absent = current_languages(project)
    except InputError:
        return codes
    shown = [code for code in codes if code in present]
    if shown:
        lineage = Lineage(project)
        _print_table([lineage.read("thresholds", code) for code in shown], project.card)
        for code in shown:
            if doubt := lineage.read("corpus_audit", code).language_doubt:
                click.echo(f"{code}: {doubt}")
    click.echo(f"{seconds:.0f} s in all")
    results = project.results
    click.echo(f"predictions  {results.root / 'predictions'}")
    if not any(Lineage(project).why_not_current(name, None) for name in ACROSS):
        click.echo(f"submission   {results.submission}  ({len(present)} of {len(project.codes)} languages)")
        click.echo(f"report       {results.report}")
    click.echo("the runs     `polar ui` opens Dagster and MLflow over this home")
    others = sorted(set(absent) - set(codes))
    if others:
        click.echo(f"not asked for and not current, so not in the submission: {', '.join(others)}")
    return [code for code in codes if code in absent]


def _print_table(found: list[Decisions], card: TaskCard) -> None:
    """A row per language, and of several labels a second table with a row for each."""
    of_one = () if card.labels else (card.label.positive, "threshold")
    columns = ("language", "", "posts", *of_one[:1], card.metric, "interval", *of_one[1:])
    title = f"{card.metric[0].upper()}{card.metric[1:]} out of fold, with its 95% interval"
    table = new_table(columns, left=("language", ""), title=title)
    for decisions in found:
        estimate, first = decisions.out_of_fold, decisions.first
        cells = [decisions.language, language(decisions.language).name, str(estimate.posts)]
        cells += [] if card.labels else [f"{first.positives:.1%}"]
        cells += [f"{estimate.value:.4f}", f"{estimate.low:.3f} - {estimate.high:.3f}"]
        table.add_row(*cells, *([] if card.labels else [f"{first.threshold:.3f}"]))
    mean = sum(decisions.out_of_fold.value for decisions in found) / len(found)
    table.add_section()
    nothing = [""] * len(of_one[:1])
    table.add_row("mean", f"of {len(found)}", "", *nothing, f"{mean:.4f}", "", *nothing)
    print_table(table)
    if card.labels:
        _print_labels(found, card)


def _print_labels(found: list[Decisions], card: TaskCard) -> None:
    """What each label scores and how many posts have it, means over the languages."""
    what = "weight" if card.kind == "multiclass" else "threshold"
    table = new_table(("label", "share", card.metric, what), left=("label",), title="Each label, mean of the languages")
    for place, name in enumerate(card.targets):
        mine = [decisions.targets[place] for decisions in found]
        rule = [
            decisions.class_weights[place] if decisions.class_weights else decisions.targets[place].threshold
            for decisions in found
        ]
        shares, values = [one.positives for one in mine], [one.out_of_fold.value for one in mine]
        means = [sum(column) / len(found) for column in (shares, values, rule)]
        table.add_row(name, f"{means[0]:.1%}", f"{means[1]:.4f}", f"{means[2]:.3f}")
    print_table(table)
