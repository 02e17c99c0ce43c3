"""Reading a CSV file as it is: every field a text, every row with its number and line, or one sentence about what is broken.

What does not belong here: what the columns mean (schema.py) and what becomes of them (posts.py).
"""

import csv
import io
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from polar_pipeline.errors import InputError


class Rows(NamedTuple):
    """A CSV file. `frame` holds texts, indexed by row number from 1 after the header; `lines` where each row starts."""

    path: Path
    frame: pd.DataFrame
    lines: list[int]

    def place(self, row: int) -> str:
        """Where a row stands, for messages: file, row, and the physical line, which line breaks in quotes move apart."""
        return _place(self.path, row, self.lines[row - 1])


def read_rows(path: Path) -> Rows:
    """Every row of the CSV file at `path`: UTF-8, with or without a BOM; blank lines between rows are passed over.

    Nothing is interpreted: "NA" stays a text, line breaks inside quotes stay as they are, an empty field is "".
    Raises InputError when there is no such file, no row in it, or a row that cannot be read.
    """
    header, records, lines = _parse(path, _decode(path, _content(path)))
    if not header:
        raise InputError(f"{path} is empty: it should hold a header line and one row per post.")
    if twice := sorted({column for column in header if header.count(column) > 1}):
        raise InputError(f"{path}: column `{twice[0]}` stands twice in the header: remove or rename one of them.")
    if not records:
        raise InputError(f"{path} holds a header and no row: it should hold one row per post.")
    index = pd.RangeIndex(1, len(records) + 1)
    return Rows(path, pd.DataFrame(records, columns=header, index=index, dtype="str"), lines)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist: run `polar data fetch`, or set POLAR_DATA_DIR to a folder with train/, dev/ and test/."
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give a readable CSV file.") from None


def _decode(path: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        # with something in the byte's place, so that a byte that opens a row counts as that row's
        readable = content[: error.start].decode("utf-8").removeprefix("\ufeff") + "?"
        before = io.StringIO(readable, newline="")
        row = max(sum(1 for record in csv.reader(before) if record) - 1, 0)
        line = content.count(b"\n", 0, error.start) + 1
        place = f"row {row} (line {line})" if row else "the header"
        raise InputError(
            f"{path}: {place} is not UTF-8 at byte {error.start} of the file (0x{content[error.start]:02x}): save the file as UTF-8."
        ) from None


def _parse(path: Path, text: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows, and the line on which each row starts; rows of another length than the header's are an error."""
    # strict: without it a quote that is never closed would swallow the rest of the file as one text
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    records: list[list[str]] = []
    lines: list[int] = []
    while True:
        line = reader.line_num + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"{_place(path, len(records) + 1, line)} is not properly quoted ({error}): "
                "close every quote, and double the quotes inside a quoted field."
            ) from None
        if record is None:
            break
        if not header:
            header = record
        elif record:
            records.append(record)
            lines.append(line)
    _refuse_ragged(path, header, records, lines)
    return header, records, lines


def _refuse_ragged(path: Path, header: list[str], records: list[list[str]], lines: list[int]) -> None:
    ragged = [number for number, record in enumerate(records, start=1) if len(record) != len(header)]
    if not ragged:
        return
    first = ragged[0]
    raise InputError(
        f"{_place(path, first, lines[first - 1])} has {len(records[first - 1])} fields where the header has {len(header)}: "
        f"put quotes around texts that contain commas, quotes or line breaks{and_more(len(ragged) - 1)}."
    )


def and_more(count: int) -> str:
    """How a message about the first problem mentions the others."""
    return f" ({count} more such problem{'s' if count > 1 else ''})" if count else ""


def _place(path: Path, row: int, line: int) -> str:
    return f"{path}: row {row} (line {line})"
