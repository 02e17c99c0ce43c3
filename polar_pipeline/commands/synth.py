"""`polar synth evaluate`: whether synthetic posts help, on the path that the assets take; and `retry`: useless answers once more."""

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from polar_pipeline.curation.review import Review, review
from polar_pipeline.decision.augmentation import ShareResult
from polar_pipeline.decision.gate import Gate, gate
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.report.comparison import verdict
from polar_pipeline.synthesis.ledger import Budget, Ledger
from polar_pipeline.synthesis.make import Made, make_posts

_COLUMNS = ("language", "allowed", "share", "posts", "macro-F1", "difference", "interval", "verdict")


def print_evaluation(project: Project, codes: list[str]) -> int:
    """Train with and without synthetic posts, and say with an interval whether they help.

    Returns the exit code: 1 when a language has no post to train with.
    """
    profile = project.profile
    if profile.synthesis.source == "none":
        raise InputError(
            f"profile {profile.name!r} makes no synthetic posts: set synthesis.source to offline or endpoint."
        )
    table, closing, empty = _table(), list[str](), 0
    try:
        for code in codes:
            posts = project.posts(code)
            settings = profile.synthesis.of(code)
            made = make_posts(posts, code, project.card, settings, profile.seed, project.home.ledgers, _say)
            found = review(posts, made.posts, code, project.card, profile, project.home, _say)
            decided = gate(found.table, code, project.card, profile)
            _add_rows(table, code, decided.results)
            closing.append(_closing(project, code, made, found, decided))
            empty += not found.usable
    finally:  # what is known when a later language fails is worth seeing
        if table.row_count:
            Console(width=max(Console().width, 100)).print(table)
        if table.row_count:
            click.echo("Intervals hold for all shares of a language together, at 95%.")
        for line in closing:
            click.echo(line)
    return 1 if empty else 0


def retry(project: Project, codes: list[str]) -> int:
    """Note in the ledgers that useless answers may be asked for again. Returns the exit code."""
    settings = project.profile.synthesis
    for code in codes:
        if not (project.home.ledgers / f"{code}.jsonl").exists():
            click.echo(f"{code}: nothing was asked yet.")
            continue
        with Ledger(project.home.ledgers, code, Budget(settings.max_dollars, settings.max_requests)) as ledger:
            keys = ledger.answers.useless_keys()
            for key in keys:
                ledger.again(key)
        click.echo(f"{code}: {len(keys)} useless answers, which the next run asks for again if its plan has them.")
    return 0


def _add_rows(table: Table, code: str, results: list[ShareResult]) -> None:
    """A row per share; `share` is what was really trained on, which is less where there are too few posts."""
    for result in results:
        found = result.difference
        said = verdict(found).replace("B is better", "helps").replace("A is better", "hurts")
        table.add_row(
            code, f"{result.asked:.0%}", f"{result.share:.1%}", str(result.posts),
            f"{result.macro_f1:.4f}", f"{found.value:+.4f}", f"{found.low:+.4f} to {found.high:+.4f}",
            said if result.posts else "",
        )  # fmt: skip
    table.add_section()


def _closing(project: Project, code: str, made: Made, found: Review, decided: Gate) -> str:
    """One sentence: what there was to train with, and what it was good for."""
    asked, most = project.profile.synthesis.of(code).posts, project.profile.curation.of(code).share
    stopped = "".join(f"; {why}" for why in (made.stopped, found.stopped) if why)
    posts = f"{code}: {found.usable} usable of {asked} posts asked for{stopped}"
    if not found.usable:
        return f"{posts}; nothing to train with."
    if decided.share == 0:
        return f"{posts}; no share up to {most:.0%} helps beyond the error, so train without them."
    best = next(result for result in decided.results if result.share == decided.share)
    return f"{posts}; train with up to {decided.share:.0%} of them ({best.difference.value:+.4f} macro-F1 out of fold)."


def _say(line: str) -> None:
    click.echo(line, err=True)


def _table() -> Table:
    table = Table(box=SIMPLE_HEAD, collapse_padding=True)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("language", "verdict") else "right", no_wrap=True)
    return table
