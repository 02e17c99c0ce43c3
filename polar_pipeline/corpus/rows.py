"""Reading a CSV file row by row: every field is a text, and every row is good or says what is wrong with it.

Memory does not grow with the file. What does not belong here: what the columns mean (posts.py).
"""

import csv
import io
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

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
        return f"row {self.number} (line {self.line}){f': `{self.column}`' if self.column else ''} {self.problem}"


class CsvFile:
    """A CSV file in UTF-8, with or without a byte order mark; blank lines between rows are skipped.

    Nothing is interpreted: "NA" stays a text, line breaks inside quotes stay as they are, an empty field is "".
    A pipe is copied to a temporary file, so that rows can be read more than once. Close it, or use it in a `with`.
    Raises InputError when the file does not exist, cannot be read, or has no usable header.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = io.TextIOWrapper(_opened(path), encoding="utf-8-sig", errors="surrogateescape", newline="")
        try:
            self.header = self._read_header()
        except InputError:
            self._file.close()
            raise

    def __enter__(self) -> "CsvFile":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def rows(self) -> Iterator[Row | BadRow]:
        """All rows, from the first on each time that it is called.

        Where quotes do not match, one line is the bad row, and reading goes on with the next line.
        """
        self._file.seek(0)
        records = _records(self._file)
        next(records)
        for number, (line, record) in enumerate(records, start=1):
            yield self._checked(number, line, record)

    def _read_header(self) -> list[str]:
        _, header = next(_records(self._file), (1, []))
        if isinstance(header, csv.Error):
            raise InputError(f"{self.path}: the header is not properly quoted ({header}): close every quote.")
        if not header:
            raise InputError(f"{self.path} is empty: it should have a header line and one row per post.")
        if bad := _undecodable("".join(header)):
            raise InputError(f"{self.path}: the header is not UTF-8 (byte {bad}): save the file as UTF-8.")
        if twice := sorted({column for column in header if header.count(column) > 1}):
            raise InputError(f"{self.path}: column `{twice[0]}` is in the header twice: remove or rename one of them.")
        return header

    def _checked(self, number: int, line: int, record: list[str] | csv.Error) -> Row | BadRow:
        if isinstance(record, csv.Error):
            remedy = "close every quote, and double the quotes inside a quoted field"
            return BadRow(number, line, "", f"is not properly quoted ({record})", remedy)
        if len(record) != len(self.header):
            problem = f"has {len(record)} fields where the header has {len(self.header)}"
            remedy = "put quotes around texts that contain commas, quotes or line breaks"
            return BadRow(number, line, "", problem, remedy)
        if _undecodable("".join(record)):
            cells = zip(self.header, record, strict=True)
            column, byte = next((name, bad) for name, field in cells if (bad := _undecodable(field)))
            return BadRow(number, line, column, f"is not UTF-8 (byte {byte})", "save the file as UTF-8")
        return Row(number, line, record)


class CsvRows(NamedTuple):
    """A CSV file as a whole. `frame` holds texts, indexed by row number from 1; `lines` has the line of each row."""

    path: Path
    frame: pd.DataFrame
    lines: list[int]

    def place(self, row: int) -> str:
        """Where a row is, for messages: file, row, and line, which differ where there are line breaks in quotes."""
        return f"{self.path}: row {row} (line {self.lines[row - 1]})"


def read_rows(path: Path) -> CsvRows:
    """Every row of the CSV file at `path`. Raises InputError as `CsvFile`, for a bad row, and if there are none."""
    with CsvFile(path) as file:
        found = list(file.rows())
        if bad := [row for row in found if isinstance(row, BadRow)]:
            raise refusal(file, bad[0], len(bad) - 1)
        if not found:
            raise no_rows(file)
        rows = [row for row in found if isinstance(row, Row)]
        index = pd.RangeIndex(1, len(rows) + 1)
        frame = pd.DataFrame([row.fields for row in rows], columns=file.header, index=index, dtype="str")
    return CsvRows(path, frame, [row.line for row in rows])


def refusal(file: CsvFile, bad: BadRow, more: int = 0) -> InputError:
    """The error about a bad row, which mentions how many more there are."""
    return InputError(f"{file.path}: {bad}: {bad.remedy}{and_more(more)}.")


def no_rows(file: CsvFile) -> InputError:
    """The error about a file that ends after its header."""
    return InputError(f"{file.path} has a header and no row: it should have one row per post.")


def and_more(count: int) -> str:
    """How a message about the first problem mentions the others."""
    return f" ({count} more such problem{'s' if count > 1 else ''})" if count else ""


def _opened(path: Path) -> BinaryIO:
    try:
        file: BinaryIO = path.open("rb")
    except FileNotFoundError:
        remedy = "run `polar data fetch`, or set POLAR_DATA_DIR to a folder with train/, dev/ and test/"
        raise InputError(f"{path} does not exist: {remedy}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give a readable CSV file.") from None
    if file.seekable():
        return file
    copy: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the CsvFile
    with file:
        shutil.copyfileobj(file, copy)
    copy.seek(0)
    return copy


def _records(file: TextIO) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Each record that is not blank, or what is wrong with its quotes, and the line on which it starts.

    Of a record that cannot be read, the lines after the first are read again as the next ones.
    """
    again, taken, line = deque[str](), list[str](), 1

    def lines() -> Iterator[str]:
        while text := again.popleft() if again else next(file, ""):
            taken.append(text)
            yield text

    # strict: without it a quote that is never closed would make one text of the rest of the file
    reader = csv.reader(lines(), strict=True)
    while True:
        taken.clear()
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            again.extendleft(reversed(taken[1:]))
            yield line, error
            line, reader = line + 1, csv.reader(lines(), strict=True)
            continue
        if record:
            yield line, record
        line += len(taken)


def _undecodable(text: str) -> str:
    """The first byte of `text` that was not UTF-8 (as 0xff), or "". Such bytes were decoded as lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"0x{ord(text[error.start]) - 0xDC00:02x}"
    return ""
