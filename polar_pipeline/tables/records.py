"""Files whose rows name their columns: JSON, JSON lines, Parquet, and folders that Hugging Face's datasets saved.

Values become texts: nothing is "", true and false stay so, whole numbers lose the .0 that an empty cell gave them, and
what holds other values is JSON. An object inside an object gives a column for each of its fields, such as `user.name`.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from polar_pipeline.errors import InputError
from polar_pipeline.tables.encoding import detect_encoding
from polar_pipeline.tables.opening import kind_of, opened
from polar_pipeline.tables.rows import BadRow, Row

_DEEPEST = 4  # objects inside objects that become columns
_BATCH = 4096  # rows of a Parquet or Arrow file that are read together


class _Closed:
    """A table that holds no file open between reads."""

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open."""


class JsonFile(_Closed):
    """Objects one after the other: a line each (.jsonl), a list of them, or a list under the only key of an object."""

    def __init__(self, path: Path, encoding: str | None = None, file: BinaryIO | None = None) -> None:
        """`file` is the one at `path` if it is open already; it is closed here."""
        self.path, self.notes = path, list[str]()
        with file or opened(path) as file:
            name = encoding or detect_encoding(file, str(path)).name
            try:
                text = file.read().decode(name).removeprefix("\ufeff")
            except UnicodeError as error:
                raise InputError(f"{path} is not {name} ({error}): save it as UTF-8.") from None
        self._records = [
            (line, _flat(found) if isinstance(found, dict) else found) for line, found in _objects(text, path)
        ]
        if not self._records:
            raise InputError(f"{path} is empty: it should hold an object per post.")
        objects = [record for _, record in self._records if isinstance(record, dict)]
        self.header = list(dict.fromkeys(key for record in objects for key in record))
        if not self.header:
            raise InputError(f"{path} holds no JSON objects: it should hold one per post.")

    def rows(self) -> Iterator[Row | BadRow]:
        """All rows."""
        for number, (line, record) in enumerate(self._records, start=1):
            if not isinstance(record, dict):
                yield BadRow(number, line, "", record, "write one JSON object per post")
            else:
                yield Row(number, line, [as_text(record.get(name)) for name in self.header])


class ArrowFile(_Closed):
    """A Parquet file, or the .arrow files of a dataset."""

    def __init__(
        self, path: Path, files: Sequence[Path | BinaryIO] = (), names: dict[str, list[str]] | None = None
    ) -> None:
        """`files` are those of the dataset in folder `path`, or the open one; `names` those of its numbered labels."""
        self.path, self.notes, self._files, self._names = path, list[str](), files or [path], names or {}
        self.header = [str(name) for name in next(iter(self._tables())).column_names]

    def rows(self) -> Iterator[Row | BadRow]:
        """All rows."""
        number = 0
        for table in self._tables():
            columns = [self._texts(name, table.column(place).to_pylist()) for place, name in enumerate(self.header)]
            for fields in zip(*columns, strict=True):
                number += 1
                yield Row(number, 0, list(fields))

    def _texts(self, name: str, values: list[Any]) -> list[str]:
        words = self._names.get(name)
        if words:
            # -1 stands for a label that is not given
            known = dict(enumerate(words)) | {-1: ""}
            values = [known.get(value, value) for value in values]
        return [as_text(value) for value in values]

    def _tables(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for file in self._files:
            try:
                if isinstance(file, Path) and file.suffix == ".arrow":
                    with pa.memory_map(str(file)) as source:
                        yield _flat_table(pa.ipc.open_stream(source).read_all())
                else:
                    parquet = pq.ParquetFile(file)
                    yield _flat_table(parquet.schema_arrow.empty_table())
                    for batch in parquet.iter_batches(_BATCH):
                        yield _flat_table(pa.Table.from_batches([batch]))
            except FileNotFoundError:
                raise InputError(f"{self.path} does not exist: correct the path.") from None
            except (OSError, ValueError, pa.ArrowException) as error:
                reason = " ".join(str(error).split())[:200]
                raise InputError(f"{self.path} cannot be read ({reason}): write it again.") from None


def dataset_splits(folder: Path) -> dict[str, ArrowFile]:
    """The splits of a folder that Hugging Face's `save_to_disk` wrote; empty for any other folder.

    A dataset without splits has the one split "".
    """
    if (folder / "dataset_dict.json").is_file():
        names = _read_json(folder / "dataset_dict.json").get("splits", [])
        return {str(name): table for name in names for table in dataset_splits(folder / str(name)).values()}
    if not (folder / "state.json").is_file() or not (folder / "dataset_info.json").is_file():
        return {}
    files = [folder / str(file["filename"]) for file in _read_json(folder / "state.json").get("_data_files", [])]
    features = _read_json(folder / "dataset_info.json").get("features") or {}
    names = {
        column: feature["names"]
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
    }
    return {"": ArrowFile(folder, files, names)}


def as_text(value: Any) -> str:
    """A value of a record as the text that a CSV file would have."""
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _objects(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    """The line and the object of each record, or in words what is wrong with it."""
    start = text.lstrip()[:1]
    whole: Any = None
    if start == "[" or kind_of(path) not in (".jsonl", ".ndjson"):
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError) as error:
            if start == "[" and not text.lstrip().partition("\n")[0].rstrip().endswith("]"):
                raise InputError(f"{path} is not JSON ({error}): correct it.") from None
    if isinstance(whole, dict):
        whole = _table_in(whole)
    if isinstance(whole, list):
        yield from ((0, one if isinstance(one, dict) else "is not an object") for one in whole)
        return
    if found := _one_after_the_other(text):
        yield from ((0, one) for one in found)
        return
    for line, content in enumerate(text.split("\n"), start=1):
        if content.strip():
            try:
                one = json.loads(content)
            except (ValueError, RecursionError) as error:
                one = f"is not JSON ({error})"
            else:
                one = one if isinstance(one, dict) else "is not an object"
            yield line, one


def _table_in(whole: dict[str, Any]) -> list[Any]:
    """The records of an object that is a table: its only list of objects, or columns as pandas writes them."""
    lists = [
        value for value in whole.values() if isinstance(value, list) and all(isinstance(one, dict) for one in value)
    ]
    if len(lists) == 1 and lists[0]:
        return lists[0]
    if set(whole) == {"columns", "index", "data"}:  # orient="split"
        return [dict(zip(whole["columns"], row, strict=False)) for row in whole["data"]]
    columns = list(whole.values())
    if len(columns) > 1 and all(isinstance(one, dict) and one.keys() == columns[0].keys() for one in columns):
        return [{name: values[row] for name, values in whole.items()} for row in columns[0]]
    return [whole]


def _one_after_the_other(text: str) -> list[Any]:
    """Objects over several lines each, one after the other; empty for a text that is anything else."""
    text = text.strip()
    first = text.partition("\n")[0].rstrip()
    if not text.startswith("{") or first.endswith("}"):
        return []
    decoder, place, found = json.JSONDecoder(), 0, list[Any]()
    while place < len(text):
        try:
            one, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            return []
        found.append(one if isinstance(one, dict) else "is not an object")
        while place < len(text) and text[place] in " \t\r\n,":
            place += 1
    return found


def _flat(record: dict[str, Any], depth: int = _DEEPEST) -> dict[str, Any]:
    """A record whose objects are columns of their own."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict) and value and depth:
            found |= {f"{name}.{inner}": deeper for inner, deeper in _flat(value, depth - 1).items()}
        else:
            found[name] = value
    return found


def _flat_table(table: Any) -> Any:
    """An Arrow table whose structs are columns of their own."""
    import pyarrow as pa

    for _ in range(_DEEPEST):
        if not any(pa.types.is_struct(kind) for kind in table.schema.types):
            break
        table = table.flatten()
    return table


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): save the dataset again.") from None
