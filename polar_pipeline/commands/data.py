"""`polar data`: fetch the release, and say what is in it."""

import click
from rich.console import Console
from rich.table import Table

from polar_pipeline.corpus.audit import Audit, audit, audit_table
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError


def check_data(project: Project, codes: list[str]) -> int:
    """Print the audit of these languages. Returns 0, or 2 when the files of any language are wrong."""
    folder = project.data
    audits: list[Audit] = []
    problems: list[str] = []
    for code in codes:
        try:
            posts = read_posts(folder, code, project.card)
            audits.append(audit(posts, code, project.card, project.profile.seed))
        except InputError as error:  # the next language may be fine; every problem is shown, and the exit code is 2
            problems.append(str(error))
    if audits:
        _print(audit_table(audits), str(folder))
    for problem in problems:
        click.echo(f"polar: {problem}", err=True)
    return 2 if problems else 0


def _print(rows: list[dict[str, object]], title: str) -> None:
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "language" else "right")
    for row in rows:
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))
    # as wide as it needs: a table that is cut in a pipe or a narrow terminal hides what it is there to show
    console = Console()
    Console(width=max(console.width, 20 + sum(len(str(column)) + 3 for column in rows[0]))).print(table)
