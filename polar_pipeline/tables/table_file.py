"""Any file of posts by its path: which kind it is, and the reader for it."""

import re
from pathlib import Path

from polar_pipeline.errors import InputError
from polar_pipeline.settings.files import FileFormat
from polar_pipeline.tables.delimited import DelimitedFile
from polar_pipeline.tables.opening import GZIP, kind_of, opened
from polar_pipeline.tables.records import ArrowFile, JsonFile
from polar_pipeline.tables.rows import Rows, TableFile, all_rows

AUTO = FileFormat()
_JSON = (".jsonl", ".ndjson", ".json")
_ARROW = (".parquet", ".pq", ".arrow")
_LOOK = 4096  # bytes of the beginning
_OBJECT = re.compile(r'(\[\s*)?\{\s*("(\\.|[^"\\])*"\s*:|\})')  # the beginning of an object, or of a list of them
_PICKLES = (".pkl", ".pickle", ".joblib")
TABLES = (".csv", ".tsv", ".tab", ".txt", *_JSON, *_ARROW)  # what is looked for in folders, also with .gz


def open_table(path: Path, form: FileFormat = AUTO) -> TableFile:
    """The reader of a file. Raises InputError when it does not exist, cannot be read or is no table."""
    kind = kind_of(path)
    if kind in _PICKLES:
        raise InputError(f"{path} is a pickle, which may hold code and is never read: save it as Parquet or CSV.")
    if path.is_dir():
        raise InputError(f"{path} is a folder: give a file.")
    if kind in _ARROW:
        return ArrowFile(path)
    if kind in _JSON:
        return JsonFile(path, form.encoding)
    # standard input has no name that says what it is, and names of files may be wrong
    file = opened(path)
    seen = suffix_of(file.read(_LOOK))
    file.seek(0)
    if seen in _ARROW:
        return ArrowFile(path, [file])
    if seen in _JSON and form.delimiter is None:
        return JsonFile(path, form.encoding, file)
    return DelimitedFile(path, form, file)


def suffix_of(start: bytes) -> str:
    """The suffix of a file that begins like this, such as .parquet; .csv.gz for what is packed, .csv for all others."""
    if start.startswith(b"PAR1"):
        return ".parquet"
    if start.startswith(GZIP):
        return ".csv.gz"
    text = start.decode("utf-8-sig", errors="replace").lstrip()
    if _OBJECT.match(text):
        return ".json" if text.startswith("[") else ".jsonl"
    return ".csv"


def read_table(path: Path, form: FileFormat = AUTO) -> Rows:
    """Every row of a file. Raises InputError as `open_table`, for a bad row, and if there are none."""
    with open_table(path, form) as file:
        return all_rows(file)
