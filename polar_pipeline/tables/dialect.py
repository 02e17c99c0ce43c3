"""How a delimited file is written: what separates its fields, how they are quoted, and where its header is.

Each way that files are written is tried on the beginning of the file, and the one that gives most rows as many fields
as the header is taken. csv.Sniffer guesses from the counts of characters, and posts are full of commas.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

SAMPLE = 1 << 18  # characters of the beginning that are looked at
DELIMITERS = (",", ";", "\t", "|")
NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}

_NO_DELIMITER = "\x1f"  # of a file with one column: no text has it
_SEP_LINE = re.compile(r'"?sep=(.)"?', re.IGNORECASE)  # Excel's own first line
_WORD = re.compile(r"\w+")  # which may be the name of the only column
_HEADER_AMONG = 5  # records, the first of which may be titles
_LONGEST_NAME = 60
_LINES_OF_A_FIELD = 50  # a quote that is open for longer was never meant to be one
_MOST_ERRORS = 20  # after which the quotes of a sample are taken to be of another kind
_QUOTINGS: tuple[dict[str, Any], ...] = (
    {},  # a quote inside a quoted field is doubled
    {"escapechar": "\\", "doublequote": False},  # or has a backslash, as databases write it
    {"quoting": csv.QUOTE_NONE},  # or quotes are part of the text, as in many tab-separated files
    {"skipinitialspace": True},  # or a blank stands before them
    {"quotechar": "'"},  # or they are single
)
# what stands under the names in some files: (unit), or the types and roles of Orange's tables
_UNIT = re.compile(r"[(\[<].*[)\]>]")
_TYPE = re.compile(
    r"d|c|s|t|string|discrete|continuous|time|text|numeric|nominal|object|bool|(int|float)(64)?", re.IGNORECASE
)
_ROLE = re.compile(r"(class|meta|ignore|weight|i|m|c|w)?(\s*\S+=\S+)*", re.IGNORECASE)
csv.field_size_limit(1 << 26)  # a post may be longer than the 128 KiB that are the default


class Dialect(NamedTuple):
    """How a file is written."""

    delimiter: str = ","
    quoting: int = 0  # which of the ways to quote
    skipped: int = 0  # records before the header
    unnamed_index: bool = False  # the header has no name for the row numbers that the rows begin with
    types: int = 0  # records below the header that say what the columns hold

    def reader(self, lines: Iterable[str]) -> Any:
        """The records of these lines. Raises csv.Error on quotes that do not match."""
        # strict: without it a quote that is never closed would make one text of the rest of the file
        return csv.reader(lines, strict=True, delimiter=self.delimiter, **_QUOTINGS[self.quoting])

    @property
    def named(self) -> str:
        """What is unlike a plain CSV file, in words; empty if nothing is."""
        plain = self.delimiter in (",", _NO_DELIMITER)
        lines = f"{self.skipped} other line{'s' if self.skipped > 1 else ''}"
        facts = {
            f"separated by {NAMES.get(self.delimiter, repr(self.delimiter))}": not plain,
            "quotes written with a backslash": self.quoting == 1,
            "quotes taken as part of the texts": self.quoting == 2,
            "quotes after a blank": self.quoting == 3,
            "single quotes": self.quoting == 4,
            f"header after {lines}": bool(self.skipped),
            f"{self.types} of types or units below the header": bool(self.types),
            "first column without a name": self.unnamed_index,
        }
        return ", ".join(text for text, true in facts.items() if true)


def detect_dialect(
    sample: str,
    whole: bool,
    delimiter: str | None = None,
    skipped: int | None = None,
    quoting: int | None = None,
) -> Dialect:
    """How the file that begins with `sample` is written; `whole` says that this is all of it.

    What is given is taken as it is.
    """
    lines = list(io.StringIO(sample, newline=""))
    if not whole and len(lines) > 1:
        lines.pop()  # it may be cut
    marked = _SEP_LINE.fullmatch(lines[0].strip()) if lines else None
    if marked and delimiter is None:
        delimiter = marked.group(1)
    best, best_value = Dialect(delimiter or _NO_DELIMITER, quoting or 0, skipped or 0), (0.0, 0)
    for character in DELIMITERS if delimiter is None else (delimiter,):
        for way in _likely_quotings(character, sample) if quoting is None else [quoting]:
            dialect = Dialect(character, way)
            records = _records(dialect, lines, whole)
            first, index = _header_place(records, skipped)
            types = _types_below(records[first : first + 3])
            found = dialect._replace(skipped=first, unnamed_index=index, types=types)
            value = _fit(records, found)
            # the plainest of equals; a header that this does not split says that it is not the delimiter
            if value > best_value and (value[1] > 1 or delimiter is not None):
                best, best_value = found, value
    return best


def _likely_quotings(delimiter: str, sample: str) -> list[int]:
    """Which ways to quote a file may use. That quotes are no quotes is usual in tab-separated files alone."""
    possible = {1: '\\"' in sample, 2: delimiter == "\t", 3: f'{delimiter} "' in sample, 4: f"{delimiter}'" in sample}
    return [0] + [way for way, likely in possible.items() if likely]


def _records(dialect: Dialect, lines: list[str], whole: bool) -> list[list[str]]:
    """The records of a sample that are not blank; a line whose quotes do not match is a record without fields."""
    found, reader, start, errors = list[list[str]](), dialect.reader(lines), 0, 0
    while errors < _MOST_ERRORS:
        before = reader.line_num
        try:
            record = next(reader)
        except StopIteration:
            return found
        except csv.Error:
            rest = len(lines) - start - before
            if not whole and start + reader.line_num == len(lines) and rest <= _LINES_OF_A_FIELD:
                return found  # the sample ends inside a quoted field
            errors += 1
            found.append([])
            start += before + 1
            reader = dialect.reader(lines[start:])
            continue
        if record:
            found.append(record)
    return found + [[]] * (len(lines) - start)


def _header_place(records: list[list[str]], skipped: int | None) -> tuple[int, bool]:
    """Which record is the header, and whether it lacks the name of an index."""
    first = skipped or 0
    if skipped is None and records and _SEP_LINE.fullmatch(",".join(records[0]).strip()):
        first = 1
    widths = Counter(len(record) for record in records[first + 1 :] if record)
    if not widths:
        return first, False
    usual = max(widths, key=lambda width: (widths[width], width))
    sure = 2 * widths[usual] > sum(widths.values())
    if skipped is None and sure:
        among = range(first, min(first + _HEADER_AMONG, len(records) - 1))
        titles = next((place for place in among if not _unlike_names(records[place], usual)), first)
        named = records[titles]
        if titles > first and len(named) == usual and all(map(str.strip, named)) and _short_names(named, 3):
            first = titles
        else:
            first = next((place for place in among if not _is_title(records[place], records[place + 1], usual)), first)
    rows = [record for record in records[first + 1 :] if len(record) == usual]
    numbered = _are_numbers([record[0] for record in rows]) and any(record[-1].strip() for record in rows)
    return first, len(widths) == 1 and numbered and len(records[first]) == usual - 1


def _is_title(record: list[str], following: list[str], usual: int) -> bool:
    """Whether a record stands above the header: a single text over several columns, or names over groups of them."""
    filled = [field for field in record if field.strip()]
    if usual > 1 and len(filled) <= 1:
        more = sum(bool(field.strip()) for field in following) > 1
        return not filled or (more if len(record) > 1 else not _WORD.fullmatch(filled[0].strip()))
    inside = record[1:].copy()
    while inside and not inside[-1].strip():
        inside.pop()
    grouped = len(record) == usual and any(not field.strip() for field in inside)
    return grouped and len(following) == usual and _like_names(following)


def _unlike_names(record: list[str], usual: int) -> bool:
    """Whether a record is no header: pieces of a sentence where the rows have more fields, or next to nothing."""
    filled = [field for field in record if field.strip()]
    if usual < 2 or len(filled) <= 1:
        return usual > 1
    other_width = len(record) != usual or not record[-1].strip()
    return other_width and (record[0].lstrip().startswith("#") or not _short_names(filled, 2))


def _short_names(record: list[str], words: int) -> bool:
    """Whether these are names of columns rather than pieces of a sentence."""
    return _like_names(record) and all(len(field.split()) <= words for field in record)


def _types_below(records: list[list[str]]) -> int:
    """How many records after the first, the header, say what the columns hold: none, one, or two in Orange's tables."""
    types = [field.strip() for field in records[1] if field.strip()] if len(records) > 1 else []
    if len(types) > 1 and all(map(_UNIT.fullmatch, types)):
        return 1
    if not types or len(types) != len(records[0]) or not all(map(_TYPE.fullmatch, types)):
        return 0
    roles = records[2] if len(records) > 2 else []
    return 1 + all(_ROLE.fullmatch(field.strip()) for field in roles)


def _like_names(record: list[str]) -> bool:
    names = [field.strip() for field in record]
    named = [name for name in names if name and len(name) <= _LONGEST_NAME and not re.fullmatch(r"[\d.,+-]+", name)]
    return len(named) == len(set(names)) == len(names)


def _are_numbers(fields: list[str]) -> bool:
    return bool(fields) and all(field.strip().isdigit() for field in fields) and len(set(fields)) == len(fields)


def _fit(records: list[list[str]], dialect: Dialect) -> tuple[float, int]:
    """The share of rows with as many fields as the header, and how many those are."""
    header = records[dialect.skipped] if len(records) > dialect.skipped else []
    width = len(header) + dialect.unnamed_index
    rows = records[dialect.skipped + dialect.types + 1 :]
    good = sum(len(trimmed(record, width)) == width for record in rows)
    return (good + 1) / (len(rows) + 1) if width else 0.0, width


def trimmed(record: list[str], width: int) -> list[str]:
    """A record without the empty fields that spreadsheets leave after the last column."""
    while len(record) > width and not record[-1].strip():
        record = record[:-1]
    return record
