"""Reading CSV files: exact round trips, and one sentence with file, row and line for each thing that breaks a file."""

import os
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.errors import InputError
from polar_pipeline.tables.delimited import DelimitedFile
from polar_pipeline.tables.rows import BadRow, Row
from polar_pipeline.tables.table_file import read_table
from polar_pipeline_tests.corpus.tables import write_csv

HEADER = b"id,text\r\n"
UTF8 = "99,déjà vu à la française, où ça\n".replace(", ", " ").encode() * 9  # shows what the encoding is


def written(folder: Path, content: bytes) -> Path:
    path = folder / "eng.csv"
    path.write_bytes(content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_table(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and message.endswith(".") and "\n" not in message
    return message.removeprefix(str(path))


@pytest.mark.parametrize(
    "text",
    [
        "NA",
        "null",
        "nan",
        "",
        "None",
        '"quoted" start',
        "a\r\nb",
        "a\nb\n",
        "a\rb",
        " spaces ",
        "1e5",
        "a,b",
        '"',
        "\ufeffx",
        "\x00",
    ],
)
def test_texts_stay_what_they_are(tmp_path: Path, text: str) -> None:
    path = write_csv(tmp_path / "eng.csv", [("id", "text"), ("eng_1", text), ("eng_2", "after")])
    assert read_table(path).frame["text"].tolist() == [text, "after"]


@given(texts=st.lists(st.text(), min_size=1, max_size=5))
def test_every_text_comes_back(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    rows = [("id", "text"), *((f"eng_{number}", text) for number, text in enumerate(texts))]
    path = write_csv(tmp_path_factory.mktemp("rows") / "eng.csv", rows)
    assert read_table(path).frame["text"].tolist() == texts


def test_rows_are_numbered_from_one_and_keep_their_lines(tmp_path: Path) -> None:
    rows = read_table(written(tmp_path, b'id,text\n1,"a\nb\r\nc"\n\n2,d\n3,e'))
    assert rows.frame.index.tolist() == [1, 2, 3]
    assert rows.lines == {1: 2, 2: 6, 3: 7}
    assert rows.place(2) == f"{tmp_path / 'eng.csv'}: row 2 (line 6)"


def test_a_byte_order_mark_is_not_part_of_the_first_column(tmp_path: Path) -> None:
    assert list(read_table(written(tmp_path, b"\xef\xbb\xbfid,text\n1,a\n")).frame.columns) == ["id", "text"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    message = refusal(tmp_path / "train" / "eng.csv")
    assert message == " does not exist: correct the path."


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    assert refusal(tmp_path) == " is a folder: give a file."


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n\n"])
def test_an_empty_file(tmp_path: Path, content: bytes) -> None:
    assert refusal(written(tmp_path, content)).startswith(" is empty")


def test_a_header_without_rows(tmp_path: Path) -> None:
    assert refusal(written(tmp_path, HEADER)).startswith(" has a header and no row")


def test_a_column_that_stands_twice(tmp_path: Path) -> None:
    assert "column `text` is in the header twice" in refusal(written(tmp_path, b"id,text,text\n1,a,b\n"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (HEADER + b"1,a\n2,b,c\n3,d\n4\n",
         r": row 2 \(line 3\) has 3 fields where the header has 2: .* \(1 more such problem\)\."),
        (HEADER + b'1,"a\nb"\n2\n', r": row 2 \(line 4\) has 1 fields where the header has 2: .*line breaks\."),
    ],
)  # fmt: skip
def test_rows_of_another_length(tmp_path: Path, content: bytes, expected: str) -> None:
    assert re.fullmatch(expected, refusal(written(tmp_path, content)))


@pytest.mark.parametrize(
    "content", [HEADER + b'1,a\n2,"b\n3,c\n', HEADER + b'1,a\n2,"b" c\n', HEADER + b'1,a\n2,"' + b"x" * 200_000]
)
def test_quotes_that_do_not_match(tmp_path: Path, content: bytes) -> None:
    message = refusal(written(tmp_path, content))
    assert message.startswith(": row 2 (line 3) is not properly quoted") and "close every quote" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (HEADER + b"1,a\n2,b\xffc\n", ": row 2 (line 3): `text` is not UTF-8 (byte 0xff): save the file as UTF-8."),
        (HEADER + b'1,"a\nb"\n2,"c\n\xe9"\n', ": row 2 (line 4): `text` is not UTF-8 (byte 0xe9): "),
        (b"\xef\xbb\xbf" + HEADER + b"1,\xff\n", ": row 1 (line 2): `text` is not UTF-8 (byte 0xff): "),
        (HEADER + b"1,a\n\xff,b\n", ": row 2 (line 3): `id` is not UTF-8 (byte 0xff): "),
        (HEADER + b"1,\xed\xa0\x80\n", ": row 1 (line 2): `text` is not UTF-8 (byte 0xed): "),
        (b"id,t\xffxt\n1,a\n", ": the header is not UTF-8 (byte 0xff): save the file as UTF-8."),
    ],
)
def test_bytes_that_are_not_utf8(tmp_path: Path, content: bytes, expected: str) -> None:
    assert refusal(written(tmp_path, content + UTF8)).startswith(expected)


def test_good_rows_between_bad_ones_keep_their_numbers_and_lines(tmp_path: Path) -> None:
    content = b'1,a\n2,b,c\n3,"d\ne"\n4,"f\n5,g\n6,\xff\n7,"h" i\n8,j\n9,"k\n'
    with DelimitedFile(written(tmp_path, HEADER + content + UTF8)) as file:
        for _ in range(2):  # each time from the beginning
            rows = list(file.rows())
            good = [(row.number, row.line, row.fields) for row in rows[:9] if isinstance(row, Row)]
            bad = [(row.number, row.line, row.column) for row in rows if isinstance(row, BadRow)]
            # a quote that is never closed costs its own line and no other
            assert good == [(1, 2, ["1", "a"]), (3, 4, ["3", "d\ne"]), (5, 7, ["5", "g"]), (8, 10, ["8", "j"])]
            assert bad == [(2, 3, ""), (4, 6, ""), (6, 8, "text"), (7, 9, ""), (9, 11, "")]


def test_a_pipe_can_be_read_twice(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "posts")
    writer = threading.Thread(target=(tmp_path / "posts").write_bytes, args=(HEADER + b"1,a\n" * 50_000,))
    writer.start()
    with DelimitedFile(tmp_path / "posts") as file:
        assert [sum(1 for _ in file.rows()) for _ in range(2)] == [50_000, 50_000]
    writer.join()


@given(lines=st.lists(st.text(alphabet='a,"\n\r', max_size=6), max_size=8))
def test_no_line_is_lost_whatever_the_quotes(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    marked = "".join(f"{number},x{line}\n" for number, line in enumerate(lines, start=1)) + "last,z\n"
    with DelimitedFile(written(tmp_path_factory.mktemp("rows"), HEADER + marked.encode())) as file:
        rows = list(file.rows())
    assert isinstance(rows[-1], Row) and rows[-1].fields == ["last", "z"]
    assert [row.number for row in rows] == list(range(1, len(rows) + 1))
