"""`polar data check`: what is in the posts, as tables of 80 columns."""

from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from polar_pipeline.corpus.audit import Audit, audit
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.progress import progress
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import ExitCode, InputError

WIDTH = 80
# by title: the headings of a table's columns, and the field of the audit that each shows
TABLES: dict[str, dict[str, str]] = {
    "Posts, shares of positives, duplicates, and how train and test differ": {
        "language": "language",
        "train": "posts_train",
        "dev": "posts_dev",
        "test": "posts_test",
        "pos\ntrain": "positive_train",
        "pos\ndev": "positive_dev",
        "dup\nrows": "duplicate_rows",
        "con-\nflicts": "conflicting_groups",
        "also\nin dev": "cross_split_dev",
        "also\nin test": "cross_split_test",
        "same\nids": "repeated_ids",
        "shift\nAUC": "shift_auc",
    },
    "Texts of all splits: scripts, characters and lengths": {
        "language": "language",
        "foreign\nscript": "foreign_script",
        "second\nscript": "secondary_script",
        "U+FFFD": "replacement_characters",
        "??": "double_question_marks",
        "not\nNFC": "not_nfc",
        "control": "control_characters",
        "median\nlength": "length_median",
        "max\nlength": "length_max",
        "odd\nlength": "length_outliers",
    },
}


def check_data(project: Project, codes: list[str]) -> ExitCode:
    """Print the audit of these languages. Returns 0, or the exit code of what is wrong with any language."""
    folder, notes = project.data, list[str]()
    audits: list[Audit] = []
    problems: list[InputError] = []
    with progress("languages", len(codes), every=5.0) as advance:
        for code in codes:
            try:
                posts = read_posts(folder, code, project.card, notes.append)
                audits.append(audit(posts, code, project.card, project.profile.seed))
            except InputError as error:  # the next language may be fine; every problem is shown
                problems.append(error)
            advance(1, code)
    for note in dict.fromkeys(notes):
        click.echo(note)
    if audits:
        _print(audits, folder)
    for problem in problems:
        click.echo(f"polar: {problem}", err=True)
    return max((problem.exit_code for problem in problems), default=ExitCode.DONE)


def _print(audits: list[Audit], folder: Path) -> None:
    click.echo(folder)
    for title, columns in TABLES.items():
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0, show_edge=False)
        for heading, field in columns.items():
            table.add_column(heading, justify="left" if field == "language" else "right", no_wrap=True)
        for found in audits:
            table.add_row(*(_cell(found, field) for field in columns.values()))
        click.echo()
        # wider only where numbers are so large: a number that is cut is worse than a long line
        Console(width=max(WIDTH, Console(width=10_000).measure(table).maximum)).print(table)
    for found in audits:
        if found.language_doubt:
            click.echo(f"{found.language}: {found.language_doubt}")


def _cell(found: Audit, field: str) -> str:
    value = getattr(found, field)
    if value is None:
        return "-"
    if field.startswith("length"):
        return str(int(value))
    return f"{value:.3f}" if isinstance(value, float) else str(value)
