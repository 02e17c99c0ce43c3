"""What several commands print alike: tables, why languages are not current, and what a database's driver says."""

from collections.abc import Iterable

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def new_table(columns: Iterable[str], left: Iterable[str] = ("language", "verdict"), title: str | None = None) -> Table:
    """A table without rows; columns of numbers, which are all but those named in `left`, are right-aligned."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", no_wrap=True)
    return table


def print_table(table: Table, least: int = 0) -> None:
    """Print a table, wider than the terminal where that has fewer than `least` characters."""
    Console(width=max(Console().width, least)).print(table)


def say_reasons(shared: dict[tuple[str, ...], list[str]], indent: str = "  ") -> None:
    """One line for each set of reasons, with the languages."""
    for reasons, languages in shared.items():
        more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        click.echo(f"{indent}{', '.join(languages)}: {'; '.join(reasons[:3])}{more}")


def driver_message(error: Exception) -> str:
    """What went wrong in one line; of an error of SQLAlchemy only what the database's driver said."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
