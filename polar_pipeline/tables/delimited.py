"""Reading a delimited text file row by row: every field is a text, and every row is good or says what is wrong with it.

Memory does not grow with the file. What does not belong here: what the columns mean.
"""

import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TextIO

from polar_pipeline.errors import InputError
from polar_pipeline.settings.files import FileFormat
from polar_pipeline.tables.dialect import SAMPLE, Dialect, detect_dialect, trimmed
from polar_pipeline.tables.encoding import UTF8, Encoding, detect_encoding
from polar_pipeline.tables.opening import opened
from polar_pipeline.tables.rows import BadRow, Row

AUTO = FileFormat()
_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?")


class DelimitedFile:
    """Text with a header line and a row per line; blank lines between rows are skipped.

    Nothing is interpreted: "NA" stays a text, line breaks inside quotes stay as they are, an empty field is "".
    What the format leaves open is detected, and said in `notes`. Close it, or use it in a `with`. Raises InputError
    when the file does not exist, cannot be read, or has no usable header.
    """

    def __init__(self, path: Path, form: FileFormat = AUTO, file: BinaryIO | None = None) -> None:
        """`file` is the one at `path` if it is open already."""
        self.path = path
        binary = file or opened(path)
        try:
            self._encoding = Encoding(form.encoding) if form.encoding else detect_encoding(binary, str(path))
            codec = "utf-8-sig" if self._encoding.name == UTF8 else self._encoding.name
            self._file = io.TextIOWrapper(binary, encoding=codec, errors="surrogateescape", newline="")
            self.dialect = self._detected(form)
            self.header = self._read_header()
        except BaseException:
            binary.close()
            raise

    def __enter__(self) -> "DelimitedFile":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    @property
    def notes(self) -> list[str]:
        """What was detected and may be wrong, in words."""
        found = [f"encoding {self._encoding.name} (guessed)"] if self._encoding.guessed else []
        return found + ([self.dialect.named] if self.dialect.named else [])

    def rows(self) -> Iterator[Row | BadRow]:
        """All rows, from the first on each time that it is called; a header that is repeated is left out.

        Where quotes do not match, one line is the bad row, and reading goes on with the next line.
        """
        for number, (line, record) in enumerate(self._records(), start=-self.dialect.types):
            if number == -self.dialect.types:
                header = record
            elif number > 0 and record != header:
                yield self._checked(number, line, record)

    @property
    def _codec(self) -> str:
        return "UTF-8" if self._encoding.name == UTF8 else self._encoding.name

    @property
    def _remedy(self) -> str:
        return "save the file as UTF-8" if self._encoding.name == UTF8 else "name another `encoding`"

    def _detected(self, form: FileFormat) -> Dialect:
        try:
            sample = self._file.read(SAMPLE)
            whole = not self._file.read(1)
        except UnicodeError as error:
            raise InputError(f"{self.path} is not {self._encoding.name} ({error}): correct `encoding`.") from None
        return detect_dialect(sample, whole, form.delimiter, form.skipped_lines, form.quoting)

    def _records(self) -> Iterator[tuple[int, list[str] | csv.Error]]:
        """The header and what follows it."""
        self._file.seek(0)
        yield from islice(_records(self._file, self.dialect), self.dialect.skipped, None)

    def _read_header(self) -> list[str]:
        _, header = next(self._records(), (1, []))
        if isinstance(header, csv.Error):
            raise InputError(f"{self.path}: the header is not properly quoted ({header}): close every quote.")
        if not any(name.strip() for name in header):
            raise InputError(f"{self.path} is empty: it should have a header line and one row per post.")
        if bad := _undecodable("".join(header)):
            raise InputError(f"{self.path}: the header is not {self._codec} (byte {bad}): {self._remedy}.")
        names = [""] * self.dialect.unnamed_index + [name.strip() for name in header]
        if twice := sorted({name for name in names if name and names.count(name) > 1}):
            if _NUMBER.fullmatch(twice[0]):
                raise InputError(
                    f"{self.path} seems to have no header, because `{twice[0]}` is no name: add a first line such as "
                    f"id,text,label."
                )
            raise InputError(f"{self.path}: column `{twice[0]}` is in the header twice: remove or rename one of them.")
        # spreadsheets leave empty columns behind the last one, and their rows may leave those out
        self._named = max((place + 1 for place, name in enumerate(names) if name), default=len(names))
        return [name or f"unnamed_{place}" for place, name in enumerate(names, start=1)]

    def _checked(self, number: int, line: int, record: list[str] | csv.Error) -> Row | BadRow:
        if isinstance(record, csv.Error):
            remedy = "close every quote, and double the quotes inside a quoted field"
            return BadRow(number, line, "", f"is not properly quoted ({record})", remedy)
        width = len(self.header)
        record = trimmed(record, width)
        if not self._named <= len(record) <= width:
            problem = f"has {len(record)} fields where the header has {width}"
            remedy = "put quotes around texts that contain commas, quotes or line breaks"
            return BadRow(number, line, "", problem, remedy)
        record = record + [""] * (width - len(record))
        if _undecodable("".join(record)):
            cells = zip(self.header, record, strict=True)
            column, byte = next((name, bad) for name, field in cells if (bad := _undecodable(field)))
            return BadRow(number, line, column, f"is not {self._codec} (byte {byte})", self._remedy)
        return Row(number, line, record)


def _records(file: TextIO, dialect: Dialect) -> Iterator[tuple[int, list[str] | csv.Error]]:
    """Each record that is not blank, or what is wrong with its quotes, and the line on which it starts.

    Of a record that cannot be read, the lines after the first are read again as the next ones.
    """
    again, taken, line = deque[str](), list[str](), 1

    def lines() -> Iterator[str]:
        while text := again.popleft() if again else next(file, ""):
            taken.append(text)
            yield text

    reader = dialect.reader(lines())
    while True:
        taken.clear()
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            again.extendleft(reversed(taken[1:]))
            yield line, error
            line, reader = line + 1, dialect.reader(lines())
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
