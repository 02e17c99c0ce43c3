"""The posts table: what reading makes of a release's files, and one sentence for each thing that is wrong with them."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.corpus.posts import check_posts, read_posts, refuse_canaries
from polar_pipeline.corpus.text import is_blank
from polar_pipeline.errors import InputError
from polar_pipeline_tests.corpus.tables import CARD, posts_of, write_release

HEADER = ("id", "text", "polarization")
CANARY = CARD.canaries[0]


def refusal(folder: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_posts(folder, "eng", CARD)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_three_files_become_one_table(tmp_path: Path) -> None:
    header = (*HEADER, "political", "extra", "stereotype")
    folder = write_release(
        tmp_path,
        train=[header, ("eng_2", "b", "1", "1", "?", "0.0"), ("eng_1", "a", "0.0", "", "?", "1")],
        dev=[HEADER, ("eng_3", "c", "1.0")],
        test=[header, ("eng_4", "d", "1", "1", "", "0")],
    )
    posts = read_posts(folder, "eng", CARD)
    assert list(posts.columns) == [
        "id",
        "text",
        "label",
        "split",
        "fold",
        "source",
        "parent_id",
        *CARD.auxiliary.columns,
    ]
    assert posts["id"].tolist() == ["eng_2", "eng_1", "eng_3", "eng_4"]
    assert posts["split"].tolist() == ["train", "train", "dev", "test"]
    assert posts["label"].tolist() == [1, 0, 1, pd.NA]
    assert posts["political"].tolist() == [1, pd.NA, pd.NA, pd.NA]
    assert posts["stereotype"].tolist() == [0, 1, pd.NA, pd.NA]
    assert posts["religious"].isna().all() and posts["parent_id"].isna().all()
    assert set(posts["fold"]) == {-1} and set(posts["source"]) == {"real"}
    assert {str(posts[name].dtype) for name in ("id", "text", "split", "source", "parent_id")} == {"str"}
    assert {str(posts[name].dtype) for name in ("label", "fold", *CARD.auxiliary.columns)} == {"Int8"}
    check_posts(posts, CARD)


@pytest.mark.parametrize("label", ["0", "1", "garbage", " ", "0.5"])
def test_labels_of_test_are_never_read(tmp_path: Path, label: str) -> None:
    header = (*HEADER, "political")
    sealed = write_release(tmp_path, test=[header, ("eng_9", "a test post", label, label)])
    test = read_posts(sealed, "eng", CARD).query("split == 'test'")
    assert test["label"].isna().all() and test["political"].isna().all()


def test_test_files_need_no_label_column(tmp_path: Path) -> None:
    folder = write_release(tmp_path, test=[("id", "text"), ("eng_9", "a test post")])
    assert len(read_posts(folder, "eng", CARD)) == 3


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_missing_file_is_named(tmp_path: Path, split: str) -> None:
    folder = write_release(tmp_path)
    (folder / split / "eng.csv").unlink()
    assert refusal(folder).startswith(f"{folder / split / 'eng.csv'} does not exist: ")


WRONG: list[tuple[str, list[tuple[str, ...]], str]] = [
    ("train", [("id", "polarization"), ("eng_1", "0")], " has no column `text`: add it to the header, "
     "or name the right one as columns.text of the task card; "
     "it has `id`, `polarization`."),
    ("train", [("id", "text"), ("eng_1", "a")], " has no column `polarization`: add it to the header."),
    ("test", [("text",), ("a",)], " has no column `id`: add it to the header, "
     "or name the right one as columns.id of the task card; it has `text`."),
    ("train", [HEADER, ("eng_1", "a", "0"), ("eng_2", "b", "2")],
     ": row 2 (line 3): column `polarization` is '2', which should be 0 or 1: correct it."),
    ("dev", [HEADER, ("eng_1", "a", "maybe")],
     ": row 1 (line 2): column `polarization` is 'maybe', which should be 0 or 1: correct it."),
    ("train", [HEADER, ("eng_1", "a", ""), ("eng_2", "b", " ")],
     ": row 1 (line 2): column `polarization` is '', which should be 0 or 1: "
     "label the post or remove it (1 more such problem)."),
    ("train", [(*HEADER, "political"), ("eng_1", "a", "0", "3")],
     ": row 1 (line 2): column `political` is '3', which should be 0 or 1: correct it."),
    ("train", [HEADER, ("eng_1", "a", "0"), ("eng_1", "b", "0")],
     ": row 2 (line 3): column `id` is 'eng_1', which an earlier row has too: give each post an id of its own."),
    ("test", [("id", "text"), ("eng_1", "a"), ("eng_1", "a")],
     ": row 2 (line 3): column `id` is 'eng_1', which an earlier row has too: give each post an id of its own."),
    ("dev", [HEADER, ("eng_1", "a\nb", "0"), ("eng_2", " \u3000\n", "0")],
     ": row 2 (line 4): column `text` is ' \\u3000\\n', which should be a text: write one or remove the row."),
    ("train", [HEADER, ("eng_1", "\u200b\ufeff", "0")],
     ": row 1 (line 2): column `text` is '\\u200b\\ufeff', which should be a text: write one or remove the row."),
    ("train", [HEADER, ("deu_1", "a", "0")],
     ": row 1 (line 2): column `id` is 'deu_1', which should start with `eng_` and go on: "
     "correct the id, or move the post to its language's file."),
    ("test", [("id", "text"), ("eng_", "a")],
     ": row 1 (line 2): column `id` is 'eng_', which should start with `eng_` and go on: "
     "correct the id, or move the post to its language's file."),
    # the first row decides what is told, not the first column
    ("train", [HEADER, ("eng_1", "a", "x"), ("2", "", "x")],
     ": row 1 (line 2): column `polarization` is 'x', which should be 0 or 1: correct it (3 more such problems)."),
    ("train", [HEADER, ("eng_1", "a", "9" * 80)],
     f": row 1 (line 2): column `polarization` is '{'9' * 59}..., which should be 0 or 1: correct it."),
]  # fmt: skip


@pytest.mark.parametrize(("split", "rows", "expected"), WRONG)
def test_what_is_wrong_is_one_sentence(
    tmp_path: Path, split: str, rows: Sequence[Sequence[str]], expected: str
) -> None:
    folder = write_release(tmp_path, **{split: rows})
    assert refusal(folder) == f"{folder / split / 'eng.csv'}{expected}"


def test_ids_may_stand_in_several_splits(tmp_path: Path) -> None:
    folder = write_release(tmp_path, train=[HEADER, ("eng_1", "a", "0")], test=[HEADER, ("eng_1", "a", "")])
    assert read_posts(folder, "eng", CARD)["id"].tolist() == ["eng_1", "eng_dev", "eng_1"]


@given(texts=st.lists(st.text(min_size=1).filter(lambda text: not is_blank(text)), min_size=1, max_size=4))
def test_texts_come_back_exactly(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    rows = [(f"eng_{number}", text, "1") for number, text in enumerate(texts)]
    folder = write_release(tmp_path_factory.mktemp("posts"), train=[HEADER, *rows])
    assert read_posts(folder, "eng", CARD).query("split == 'train'")["text"].tolist() == texts


@pytest.mark.parametrize(
    "text",
    [CANARY, f"before {CANARY.upper()} after", CANARY.replace("-", " "), CANARY.replace("-", "\u2013"),
     CANARY.replace("-", ""), CANARY.replace("-", "\u00a0\n"), f"https://example.org/{CANARY}", f"@{CANARY}"],
)  # fmt: skip
@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_canary_is_refused_in_any_form(tmp_path: Path, text: str, split: str) -> None:
    folder = write_release(
        tmp_path, **{split: [HEADER, ("eng_1", "a", "0"), ("eng_2", text, "0"), ("eng_3", text, "1")]}
    )
    assert refusal(folder) == (
        f"post eng_2 of {split} contains a canary, the mark of texts that must never be trained on: "
        "remove the post (1 more such problem)."
    )


def test_a_canary_in_test_is_where_it_belongs() -> None:
    refuse_canaries(posts_of([("eng_1", CANARY, None, "test"), ("eng_2", CANARY[:-1], 0, "train")]), CARD)


def test_canaries_of_the_test_file_count_too(tmp_path: Path) -> None:
    marked = [("id", "text", "canary"), ("eng_8", "x", "zz11-22yy"), ("eng_9", "y", "")]
    folder = write_release(tmp_path, train=[HEADER, ("eng_1", "see ZZ1122YY", "0")], test=marked)
    assert refusal(folder).startswith("post eng_1 of train contains a canary")


def test_a_short_value_in_the_canary_column_marks_nothing(tmp_path: Path) -> None:
    marked = [("id", "text", "canary"), ("eng_8", "x", "1"), ("eng_9", "y", "-")]
    folder = write_release(tmp_path, train=[HEADER, ("eng_1", "1 - 1", "0")], test=marked)
    assert len(read_posts(folder, "eng", CARD)) == 4


GOOD = [("eng_1", "a", 0, "train"), ("eng_2", "b", 1, "dev"), ("eng_1", "c", None, "test")]


def test_a_good_table_passes_also_after_parquet(tmp_path: Path) -> None:
    posts = posts_of(GOOD)
    posts.to_parquet(tmp_path / "posts.parquet", index=False)
    check_posts(posts, CARD)
    check_posts(pd.read_parquet(tmp_path / "posts.parquet"), CARD)
    check_posts(posts.assign(keep=True), CARD)


def with_value(column: str, row: int, value: object) -> pd.DataFrame:
    posts = posts_of(GOOD)
    posts.loc[row, column] = value
    return posts


@pytest.mark.parametrize(
    ("posts", "expected"),
    [
        (posts_of(GOOD).drop(columns="fold"), "posts table has no column `fold`"),
        (posts_of(GOOD).drop(columns="political"), "posts table has no column `political`"),
        (posts_of(GOOD).astype({"fold": "int64"}), "posts table: column `fold` is of type int64"),
        (with_value("label", 0, 2), "posts table, row 1 (id eng_1): column `label` is 2, which should be 0 or 1"),
        (with_value("political", 1, -1), "posts table, row 2 (id eng_2): column `political` is -1"),
        (with_value("text", 1, " "), "posts table, row 2 (id eng_2): column `text` is ' '"),
        (with_value("split", 1, "valid"), "posts table, row 2 (id eng_2): column `split` is 'valid'"),
        (with_value("fold", 0, -2), "posts table, row 1 (id eng_1): column `fold` is -2"),
        (with_value("source", 0, None), "posts table, row 1 (id eng_1): column `source` is missing"),
        (with_value("label", 0, None), "posts table, row 1 (id eng_1): it has no label"),
        (with_value("label", 2, 1), "posts table, row 3 (id eng_1): it is a test post with a label"),
        (with_value("political", 2, 0), "posts table, row 3 (id eng_1): it is a test post with a label"),
        (with_value("fold", 2, 0), "posts table, row 3 (id eng_1): it is a test post in a fold"),
        (with_value("split", 2, "train").fillna({"label": 0}), "posts table, row 3 (id eng_1): its id is in an"),
    ],
)  # fmt: skip
def test_a_bad_table_is_refused(posts: pd.DataFrame, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        check_posts(posts.set_index(pd.Index([7] * len(posts))), CARD)
    assert str(caught.value).startswith(expected)
    assert "more such" not in str(caught.value)
