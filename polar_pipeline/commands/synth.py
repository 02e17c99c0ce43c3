"""`polar synth evaluate`: do synthetic posts help? `polar synth retry`: useless answers may be asked for again."""

import click
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from polar_pipeline.augmentation import Gate, ShareResult, gate
from polar_pipeline.curation.curate import Curated, curate_by_profile
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.report.comparison import verdict
from polar_pipeline.synthesis.exceptions import USELESS
from polar_pipeline.synthesis.generate import Made, make_posts
from polar_pipeline.synthesis.ledger import Ledger

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
            posts = _posts(project, code)
            settings = profile.synthesis.of(code)
            made = make_posts(posts, code, project.card, settings, profile.seed, project.home.ledgers, _say)
            curated = curate_by_profile(posts, made.posts, code, project.card, profile, project.home, _say)
            decided = gate(curated.table, code, project.card, profile)
            _add_rows(table, code, decided.results)
            closing.append(_closing(project, code, made, curated, decided))
            empty += not curated.usable
    finally:  # results are worth seeing even if a later language fails
        if table.row_count:
            Console(width=max(Console().width, 100)).print(table)
            click.echo("Intervals hold for all shares of a language together, at 95%.")
        for line in closing:
            click.echo(line)
    return 1 if empty else 0


def retry(project: Project, codes: list[str]) -> int:
    """Let the next run ask for useless answers again. Returns the exit code."""
    for code in codes:
        with Ledger(project.home.ledgers, code) as ledger:
            outcomes = ledger.outcomes()
            useless = [key for key, outcome in outcomes.items() if outcome in USELESS]
            ledger.discard(useless)
        click.echo(
            f"{code}: {len(useless)} useless answers, which the next run asks for again if its plan has them."
            if outcomes
            else f"{code}: nothing was answered yet."
        )
    return 0


def _add_rows(table: Table, code: str, results: list[ShareResult]) -> None:
    """A row per share."""
    for result in results:
        found = result.difference
        said = verdict(found).replace("B is better", "helps").replace("A is better", "hurts")
        table.add_row(
            code, f"{result.asked:.0%}", f"{result.share:.1%}", str(result.posts),
            f"{result.macro_f1:.4f}", f"{found.value:+.4f}", f"{found.low:+.4f} to {found.high:+.4f}",
            said if result.posts else "",
        )  # fmt: skip
    table.add_section()


def _closing(project: Project, code: str, made: Made, curated: Curated, decided: Gate) -> str:
    """One sentence: how many posts there were to train with, and whether they help."""
    asked, most = project.profile.synthesis.of(code).posts, project.profile.curation.of(code).share
    stopped = "".join(f"; {why}" for why in (made.stopped, curated.stopped) if why)
    posts = f"{code}: {curated.usable} usable of {asked} posts asked for{stopped}"
    if not curated.usable:
        return f"{posts}; nothing to train with."
    if decided.share == 0:
        return f"{posts}; no share up to {most:.0%} helps beyond the error, so train without them."
    best = next(result for result in decided.results if result.share == decided.share)
    return f"{posts}; train with up to {decided.share:.0%} of them ({best.difference.value:+.4f} macro-F1 out of fold)."


def _posts(project: Project, code: str) -> pd.DataFrame:
    return project.posts(code)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _table() -> Table:
    table = Table(box=SIMPLE_HEAD, collapse_padding=True)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column in ("language", "verdict") else "right", no_wrap=True)
    return table
