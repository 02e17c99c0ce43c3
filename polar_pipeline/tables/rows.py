"""Rows of any file of posts: what a row is, what a bad one is, and files as a whole.

Every field is a text. What does not belong here: how a kind of file is read, and what the columns mean.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import pandas as pd

from polar_pipeline.errors import InputError


class Row(NamedTuple):
    """A row that can be read: its number from 1 after the header, the line where it starts, and a text per column."""

    number: int
    line: int
    fields: list[str]


class BadRow(NamedTuple):
    """A row that cannot be used. `column` is empty when the row as a whole is wrong."""

    number: int
    line: int
    column: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        """Place and problem, without the remedy."""
        return f"{place(self.number, self.line)}{f': `{self.column}`' if self.column else ''} {self.problem}"


class TableFile(Protocol):
    """A file of rows, whatever its format. Close it, or use it in a `with`."""

    path: Path
    header: list[str]

    @property
    def notes(self) -> list[str]:
        """What was detected and may be wrong, in words."""

    def rows(self) -> Iterator[Row | BadRow]:
        """All rows, from the first on each time that it is called."""

    def __enter__(self) -> Self:
        """Itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""


class Rows(NamedTuple):
    """A file as a whole. `frame` holds texts, indexed by row number from 1; `lines` has the line of each row.

    Lines are 0 in a format that has none.
    """

    path: Path
    frame: pd.DataFrame
    lines: dict[int, int]
    notes: list[str]

    @property
    def header(self) -> list[str]:
        """The columns."""
        return [str(name) for name in self.frame.columns]

    def place(self, row: int) -> str:
        """Where a row is, for messages: file, row, and line, which differ where there are line breaks in quotes."""
        return f"{self.path}: {place(row, self.lines[row])}"


def all_rows(file: TableFile, skip_bad: bool = False) -> Rows:
    """Every row of an open file. Raises InputError for a bad row unless those are skipped, and if there are none."""
    found = list(file.rows())
    bad = [row for row in found if isinstance(row, BadRow)]
    if bad and not skip_bad:
        raise refusal(file, bad[0], len(bad) - 1)
    rows = [row for row in found if isinstance(row, Row)]
    if not rows:
        raise refusal(file, bad[0], len(bad) - 1) if bad else no_rows(file)
    index = pd.Index([row.number for row in rows])
    frame = pd.DataFrame([row.fields for row in rows], columns=file.header, index=index, dtype="str")
    left_out = [f"{len(bad)} rows are left out, the first is {bad[0]}"] if bad else []
    return Rows(file.path, frame, {row.number: row.line for row in rows}, [*file.notes, *left_out])


def place(number: int, line: int) -> str:
    """A row in words."""
    return f"row {number} (line {line})" if line else f"row {number}"


def refusal(file: TableFile, bad: BadRow, more: int = 0) -> InputError:
    """The error about a bad row, which mentions how many more there are."""
    return InputError(f"{file.path}: {bad}: {bad.remedy}{and_more(more)}.")


def no_rows(file: TableFile) -> InputError:
    """The error about a file that ends after its header."""
    return InputError(f"{file.path} has a header and no row: it should have one row per post.")


def and_more(count: int) -> str:
    """How a message about the first problem mentions the others."""
    return f" ({count} more such problem{'s' if count > 1 else ''})" if count else ""
