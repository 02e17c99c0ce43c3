"""How files are written: each way that people have is told from its beginning alone, and plain files stay plain."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.tables.dialect import DELIMITERS, Dialect, detect_dialect

WAYS: dict[str, tuple[str, Dialect]] = {
    "plain": ('id,text,label\n1,"a, b",0\n2,c,1\n', Dialect()),
    "semicolons, and commas in texts": ('id;text;label\n1;a, b, c;0\n2;"x; y, z";1\n', Dialect(";")),
    "tabs": ("id\ttext\n1\ta, b; c\n", Dialect("\t")),
    "tabs, and quotes that are no quotes": ('id\ttext\n1\t"hi" she said\n2\t"so\n3\tc\n', Dialect("\t", 2)),
    "tabs, and quotes that are": ('id\ttext\n1\t"a\nb"\n2\t"x ""y"""\n', Dialect("\t")),
    "bars": ("id|text|y\n1|a,b|0\n", Dialect("|")),
    "backslashes before quotes": ('id,text\n1,"he \\"said\\", x"\n2,b\n', Dialect(quoting=1)),
    "Excel's first line": ("sep=;\nid;text\n1;a\n", Dialect(";", skipped=1)),
    "Excel's first line, of a comma": ("sep=,\nid,text\n1,a\n", Dialect(skipped=1)),
    "a title": ("Export of 2024\nid,text,label\n1,a,0\n2,b,1\n", Dialect(skipped=1)),
    "a title and an empty line": ("Export of 2024\n\nid;text;label\n1;a;0\n2;b;1\n", Dialect(";", skipped=1)),
    "names over groups": (",,Labels,\nid,text,a,b\n1,x,0,1\n2,y,1,0\n", Dialect(skipped=1)),
    "row numbers without a name": ("text,label\n1,hello,0\n2,b,1\n", Dialect(unnamed_index=True)),
    "an unnamed first column": (",text,label\n0,a,1\n1,b,0\n", Dialect()),
    "empty columns at the end": ("id,text,label,,\n1,a,0,,\n2,b,1,,\n", Dialect()),
    "empty fields at the end of rows": ("id,text,label\n1,a,0,\n2,b,1,\n", Dialect()),
    "old line ends": ("id;text\r1;a\r2;b\r", Dialect(";")),
    "a header alone": ("id;text\n", Dialect(";")),
    "a quote that is never closed": ('id,text\n1,a\n2,"b\n' + "3,c\n" * 100, Dialect()),
}


@pytest.mark.parametrize("name", WAYS)
def test_each_way_is_told(name: str) -> None:
    content, expected = WAYS[name]
    assert detect_dialect(content, whole=True) == expected
    # and from a beginning that is cut in the middle of its last line
    if content.count("\n") > 3:
        assert detect_dialect(content + content[-3:-1], whole=False) == expected


def test_one_column_is_not_split_at_its_commas() -> None:
    assert detect_dialect("text\nHello, world; yes\nb | c\n", whole=True).delimiter not in DELIMITERS


def test_what_is_given_is_taken() -> None:
    assert detect_dialect("id,text;x\n1,a;b\n", True, delimiter=";").delimiter == ";"
    assert detect_dialect("id,text\n1,a\n", True, skipped=1).skipped == 1
    assert detect_dialect('id,text\n1,"a"\n', True, quoting=2).quoting == 2


CELLS = st.text(st.characters(exclude_characters="\r\0", exclude_categories=["Cs"]), max_size=12)


@given(
    delimiter=st.sampled_from(DELIMITERS),
    rows=st.lists(st.tuples(st.integers(0, 999), CELLS, st.sampled_from("01")), min_size=3, max_size=12),
)
def test_what_the_csv_module_writes_is_read_in_its_own_dialect(
    delimiter: str, rows: list[tuple[int, str, str]]
) -> None:
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("id", "text", "label"), *rows])
    found = detect_dialect(written.getvalue(), whole=True)
    assert (found.delimiter, found.skipped, found.unnamed_index) == (delimiter, 0, False)
    records = list(found.reader(io.StringIO(written.getvalue(), newline="")))
    assert records == [["id", "text", "label"], *([str(number), text, label] for number, text, label in rows)]


@pytest.mark.parametrize(
    ("dialect", "words"),
    [
        (Dialect(), ""),
        (Dialect("\t", 2), "separated by tabs, quotes taken as part of the texts"),
        (Dialect(";", skipped=2), "separated by semicolons, header after 2 other lines"),
        (Dialect("~", 1, 1, True), "separated by '~', quotes written with a backslash, header after 1 other line, "
         "first column without a name"),
    ],
)  # fmt: skip
def test_what_is_unlike_a_plain_file_is_said(dialect: Dialect, words: str) -> None:
    assert dialect.named == words
