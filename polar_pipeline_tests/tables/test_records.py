"""JSON, Parquet and datasets folders: the same rows as a CSV file has, and one sentence for each broken one."""

import gzip
import json
import pickle
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from polar_pipeline.errors import InputError
from polar_pipeline.tables.records import as_text, dataset_splits
from polar_pipeline.tables.rows import BadRow, all_rows
from polar_pipeline.tables.table_file import open_table, read_table

ROWS = [{"id": "007", "text": "a\nb, “c”", "label": 1}, {"id": "8", "text": "ü", "label": None}]
EXPECTED = [["007", "a\nb, “c”", "1"], ["8", "ü", ""]]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def save_dataset(folder: Path, rows: list[dict[str, object]], names: list[str] | None = None) -> None:
    """A folder as `Dataset.save_to_disk` writes it."""
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as out,
    ):
        out.write_table(table)
    label = {"_type": "ClassLabel", "names": names} if names else {"_type": "Value", "dtype": "int64"}
    write(folder / "dataset_info.json", json.dumps({"features": {"label": label}}))
    write(folder / "state.json", json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))


FILES = {
    "posts.jsonl": "\n".join(map(json.dumps, ROWS)) + "\n",
    "posts.ndjson": "\ufeff" + "\r\n\r\n".join(map(json.dumps, ROWS)),
    "posts.json": json.dumps(ROWS, indent=1),
    "under_a_key.json": json.dumps({"data": ROWS}),
    "lines.json": "\n".join(map(json.dumps, ROWS)),
    "posts.csv.gz": gzip.compress("id,text,label\n007,\"a\nb, “c”\",1\n8,ü,\n".encode(), mtime=0),
    "posts.jsonl.gz": gzip.compress("\n".join(map(json.dumps, ROWS)).encode(), mtime=0),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    rows = read_table(write(tmp_path / name, FILES[name]))
    assert list(rows.frame.columns) == ["id", "text", "label"]
    assert rows.frame.to_numpy().tolist() == EXPECTED
    assert set(rows.frame.dtypes.astype(str)) == {"str"}


@pytest.mark.parametrize("suffix", [".parquet", ".pq"])
def test_parquet_too(suffix: str, tmp_path: Path) -> None:
    pd.DataFrame(ROWS).to_parquet(tmp_path / f"posts{suffix}")  # the missing label makes the others 1.0
    rows = read_table(tmp_path / f"posts{suffix}")
    assert rows.frame.to_numpy().tolist() == EXPECTED
    assert rows.place(2) == f"{tmp_path / f'posts{suffix}'}: row 2"


def test_many_rows_of_parquet_come_in_order(tmp_path: Path) -> None:
    pd.DataFrame({"id": range(10_000)}).to_parquet(tmp_path / "posts.parquet")
    with open_table(tmp_path / "posts.parquet") as file:
        for _ in range(2):
            assert [int(row.fields[0]) for row in file.rows() if not isinstance(row, BadRow)] == list(range(10_000))


def test_a_dataset_and_the_names_of_its_labels(tmp_path: Path) -> None:
    save_dataset(
        tmp_path / "one",
        [{"text": "a", "label": 1}, {"text": "b", "label": 0}, {"text": "c", "label": -1}],
        ["no", "hate"],
    )
    ((name, table),) = dataset_splits(tmp_path / "one").items()
    assert name == "" and all_rows(table).frame.to_numpy().tolist() == [["a", "hate"], ["b", "no"], ["c", ""]]


def test_the_splits_of_a_dataset(tmp_path: Path) -> None:
    for split in ("train", "validation"):
        save_dataset(tmp_path / split, [{"text": split, "label": 3}])
    write(tmp_path / "dataset_dict.json", json.dumps({"splits": ["train", "validation"]}))
    found = {name: all_rows(table).frame.to_numpy().tolist() for name, table in dataset_splits(tmp_path).items()}
    assert found == {"train": [["train", "3"]], "validation": [["validation", "3"]]}
    assert dataset_splits(tmp_path / "none") == {}


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "a.jsonl",
            '{"text": "a"}\n{"text": "b"\n',
            r"a\.jsonl: row 2 \(line 2\) is not JSON \(.*write one JSON object",
        ),
        ("a.jsonl", '{"text": "a"}\n"b"\n', r"row 2 \(line 2\) is not an object: write one JSON object per post"),
        ("a.json", '[{"text": "a"}, 3]', r"row 2 is not an object"),
        ("a.json", '[{"text": "a"}', r"a\.json is not JSON \("),
        ("a.json", "[]", "is empty"),
        ("a.jsonl", "\n", "is empty"),
        ("a.jsonl", "3\n", "holds no JSON objects"),
        ("a.parquet", "id,text\n", r"a\.parquet cannot be read \(.*write it again"),
        (
            "a.csv",
            b"PK\x03\x04" + b"x" * 99,
            r"a\.csv is an Excel workbook or another zip archive: save the sheet as CSV",
        ),
        ("a.csv", b"\xd0\xcf\x11\xe0" + b"x" * 99, "is an old Excel workbook"),
        ("a.csv", pickle.dumps([1]), "is a pickle, which may hold code and is never read"),
        ("a.pkl", "x", "is a pickle, which may hold code and is never read"),
        ("a.csv.gz", gzip.compress(b"id,text\n1,a\n", mtime=0)[:-9], r"cannot be unpacked"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(name: str, content: str | bytes, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        read_table(write(tmp_path / name, content))
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(tmp_path))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (float("nan"), ""), (True, "true"), (False, "false"), (3, "3"), (3.0, "3"), (0.5, "0.5"), ("NA", "NA"),
     ([1, "ü"], '[1, "ü"]'), ({"a": None}, '{"a": null}')],
)  # fmt: skip
def test_values_become_texts(value: object, text: str) -> None:
    assert as_text(value) == text


NESTED = [{"data": {"text": "a", "user": {"name": "x", "tags": ["p"]}}, "n": {}}, {"data": {"text": "b"}, "n": None}]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_objects_inside_objects_are_columns(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"posts{suffix}"
    if suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, NESTED)))
    else:
        pd.DataFrame([{"data": one["data"]} for one in NESTED]).to_parquet(path)
    frame = read_table(path).frame
    assert frame["data.text"].tolist() == ["a", "b"]
    assert frame["data.user.name"].tolist() == ["x", ""] and frame["data.user.tags"].tolist() == ['["p"]', ""]


@pytest.mark.parametrize("name", ["posts.csv", "posts.txt", "posts"])
@pytest.mark.parametrize("kind", ["lines", "list", "parquet", "key"])
def test_a_file_is_what_it_holds_and_not_what_it_is_called(kind: str, name: str, tmp_path: Path) -> None:
    content: str | bytes = {
        "lines": "\n".join(map(json.dumps, ROWS)), "list": json.dumps(ROWS),
        "key": json.dumps({"data": ROWS}, indent=2), "parquet": pd.DataFrame(ROWS).to_parquet(),
    }[kind]  # fmt: skip
    assert read_table(write(tmp_path / name, content)).frame.to_numpy().tolist() == EXPECTED


def test_text_in_braces_is_no_json(tmp_path: Path) -> None:
    frame = read_table(write(tmp_path / "posts.csv", "{text},label\n[a],1\n")).frame
    assert frame.to_dict("records") == [{"{text}": "[a]", "label": "1"}]
