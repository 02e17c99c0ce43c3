"""Guessing what the columns of unknown files hold: by names in several languages, else by what is in them."""

import pandas as pd
import pytest

from polar_pipeline.corpus.guess import Guess, guess_columns, guess_words, says_positive

TEXTS = [f"this is post number {number} about something" for number in range(30)]
NO = {"text": None, "label": None, "id": None}


def frame(**columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame(columns, dtype="str")


LABELS = ["0", "1", "1"] * 10
NUMBERS = [str(number) for number in range(30)]


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"id": NUMBERS, "text": TEXTS, "label": LABELS}, Guess("text", "label", "id", None, None)),
        ({"Tweet": TEXTS, "Class": LABELS}, Guess("Tweet", "Class", None, None, None)),
        ({"tweet_id": NUMBERS, "full_text": TEXTS, "is_hate": LABELS},
         Guess("full_text", "is_hate", "tweet_id", None, None)),
        ({"x": NUMBERS, "y": TEXTS, "z": LABELS}, Guess("y", "z", None, None, None)),
        ({"text": TEXTS, "label": LABELS, "lang": ["de", "en"] * 15, "split": ["train", "val", "test"] * 10},
         Guess("text", "label", None, "lang", "split")),
        # a column of short words may hold anything: what languages the posts are in decides (guess_language)
        ({"a": TEXTS, "b": LABELS, "c": ["German", "English"] * 15}, Guess("a", "b", None, None, None)),
        # a column is not what its name says if its cells are not
        ({"text": LABELS, "content": TEXTS, "language": TEXTS}, Guess("content", "text", None, None, None)),
        # repeated ids name no post
        ({"id": ["1"] * 30, "text": TEXTS, "label": LABELS}, Guess("text", "label", None, None, None)),
        ({"text": TEXTS}, Guess("text", None, None, None, None)),
        ({"label": LABELS}, Guess(None, "label", None, None, None)),
    ],
)  # fmt: skip
def test_what_columns_hold(columns: dict[str, list[str]], expected: Guess) -> None:
    assert guess_columns(frame(**columns), NO) == expected


def test_what_is_given_is_taken() -> None:
    table = frame(text=TEXTS, label=LABELS, other=["a", "b"] * 15)
    assert guess_columns(table, NO | {"label": "other"}).label == "other"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["0", "1", "1"], {"0": 0, "1": 1}),
        (["TRUE", "FALSE"], {"FALSE": 0, "TRUE": 1}),
        (["ja", "nein", "ja"], {"nein": 0, "ja": 1}),
        (["normal", "x", "x", "x"], {"normal": 0, "x": 1}),  # the word that is no denial
        (["hate", "other", ""], {"other": 0, "hate": 1}),
        (["a", "a", "b"], {"a": 0, "b": 1}),  # else the rarer one
        (["a", "b", "c"], None),
        (["a", "a"], None),
        ([], None),
    ],
)
def test_which_label_is_positive(values: list[str], words: dict[str, int] | None) -> None:
    found = guess_words(pd.Series(values, dtype="str"))
    assert found == words and (found is None or list(found.values()) == [0, 1])


@pytest.mark.parametrize(
    ("words", "says"), [({"no": 0, "x": 1}, True), ({"a": 0, "hateful": 1}, True), ({"a": 0, "b": 1}, False)]
)
def test_whether_words_say_it(words: dict[str, int], says: bool) -> None:
    assert says_positive(words) == says


def test_files_that_are_sorted_by_label() -> None:
    rows = 6000
    table = frame(
        text=[f"a post with words {number}" for number in range(rows)],
        label=["a"] * (rows // 2) + ["b"] * (rows // 2),
        shop=["x", "y", "z"] * (rows // 3),
    )
    assert guess_columns(table, NO).label == "label"
