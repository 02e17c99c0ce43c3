"""Any file of posts by its path: which kind it is, and the reader for it."""

from pathlib import Path

from polar_pipeline.errors import InputError
from polar_pipeline.settings.files import FileFormat
from polar_pipeline.tables.delimited import DelimitedFile
from polar_pipeline.tables.records import ArrowFile, JsonFile
from polar_pipeline.tables.rows import Rows, TableFile, all_rows

AUTO = FileFormat()
_JSON = (".jsonl", ".ndjson", ".json")
_ARROW = (".parquet", ".pq", ".arrow")
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
    return DelimitedFile(path, form)


def kind_of(path: Path) -> str:
    """The suffix of a file in small letters, that before .gz where it is packed."""
    return (Path(path.stem) if path.suffix.lower() == ".gz" else path).suffix.lower()


def read_table(path: Path, form: FileFormat = AUTO) -> Rows:
    """Every row of a file. Raises InputError as `open_table`, for a bad row, and if there are none."""
    with open_table(path, form) as file:
        return all_rows(file)
