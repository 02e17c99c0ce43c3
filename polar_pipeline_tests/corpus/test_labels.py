"""Labels of a post whose names stand in one cell."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from polar_pipeline.corpus.guess import guess_separator
from polar_pipeline.corpus.labels import labels_in
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.errors import InputError
from polar_pipeline.report.evidence import read_test_labels
from polar_pipeline.task.card import TaskCard

CARD: dict[str, Any] = {
    "name": "emotions",
    "title": "Emotions",
    "kind": "multilabel",
    "languages": ["deu"],
    "label": {"column": "emotions", "separator": ";"},
    "labels": ["joy", {"name": "anger", "words": ["Wut"]}],
}


def card(**changes: Any) -> TaskCard:
    return TaskCard.model_validate({**CARD, **changes})


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("", []), (" ; ", []), ("joy", ["joy"]), (" joy ;anger", ["joy", "anger"]), ("[]", []), ("['joy']", ["joy"]),
        ('["joy", "very, very angry"]', ["joy", "very, very angry"]), ("[joy, anger]", ["joy", "anger"]),
        ("[no, 1]", ["no", "1"]), ("[a, [b]]", ["[a, [b]]"]), ("[" * 5000 + "]" * 5000, ["[" * 5000 + "]" * 5000]),
        ("[!!python/object:os.system x]", ["x"]), ("[&a joy, *b]", ["[&a joy, *b]"]),
    ],
)  # fmt: skip
def test_names_in_a_cell(cell: str, names: list[str]) -> None:
    assert labels_in(cell, ";") == names


def test_a_column_of_names_becomes_labels(tmp_path: Path) -> None:
    path = tmp_path / "posts.csv"
    path.write_text("text,emotions,part\na,joy;Wut,train\nb,,train\nc,JOY,train\nd,,test\n")
    posts = read_posts(path, "deu", card(columns={"split": "part"})).set_index("text")
    assert posts.loc[["a", "b", "c"], ["joy", "anger", "label"]].to_numpy().tolist() == [
        [1, 1, 1],
        [0, 0, 0],
        [1, 0, 1],
    ]
    assert posts.loc["d", ["joy", "anger", "label"]].isna().all() and posts.loc["d", "split"] == "test"
    # a split without any label is not labelled, and one with some is
    assert read_test_labels(path, "deu", card(columns={"split": "part"})) is None
    path.write_text("text,emotions,part\na,joy;Wut,train\nb,anger,test\nc,,test\n")
    labels = read_test_labels(path, "deu", card(columns={"split": "part"}))
    assert labels is not None and labels[["joy", "anger"]].to_numpy().tolist() == [[0, 1], [0, 0]]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("text,emotions\na,joy\nb,joy;fear\n", "row 2 .line 3.: column `emotions` has 'fear', which is none of the "
         "labels joy, anger: correct it, or add it to `labels`"),
        ("text,feelings\na,joy\n", "has no column `emotions`"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text(content)
    with pytest.raises(InputError, match=sentence):
        read_posts(tmp_path, "deu", card())


def test_a_separator_is_of_several_labels_in_one_column() -> None:
    with pytest.raises(ValueError, match="separator is of a multilabel task"):
        card(label={"separator": ";"})


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["a;b", "a", "b", "b;a;c", "c", ""], ";"),
        (["a, b", "b", "a", "c, a"], ","),
        (['["a"]', '["a", "b"]', "[]", '["b", "a"]', '["b"]'], ","),
        (["yes", "no", "yes"], None),
        (["hate, strong", "hate, weak", "hate, strong"], None),
        (["a text, with clauses", "another, longer one", "and more, of that kind"], None),
        (["neutral/none", "neutral/none", "positive"], None),
        ([""], None),
    ],
)  # fmt: skip
def test_what_separates_names_is_seen(cells: list[str], separator: str | None) -> None:
    assert guess_separator(pd.Series(cells, dtype="str")) == separator
