"""Doubtful labels: exact small cases, planted mistakes, and the file as people open it."""

from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.decision.label_errors import (
    CONTRADICTED,
    DISAGREEING,
    doubtful_labels,
    label_errors,
    write_label_errors,
)
from polar_pipeline_tests.corpus.tables import CARD


def posts(labels: list[int], probabilities: list[float], texts: list[str] | None = None) -> pd.DataFrame:
    ids = [f"p{number}" for number in range(len(labels))]
    texts = texts or [f"text {number}" for number in ids]
    return pd.DataFrame({"split": "train", "id": ids, "text": texts, "label": labels, "probability": probabilities})


def doubted(table: pd.DataFrame) -> pd.DataFrame:
    positive = table["probability"].to_numpy(dtype=float)
    return label_errors(table, np.stack([1 - positive, positive], axis=1))


def test_a_label_that_its_score_contradicts() -> None:
    found = doubted(posts([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.9, 0.9, 0.8, 0.1]))
    # the usual probability of the own label is (0.9 + 0.8 + 0.1) / 3 = 0.6 on both sides
    assert found["id"].tolist() == ["p2", "p5"] and found["suggested"].tolist() == [1, 0]
    assert set(found["reason"]) == {CONTRADICTED}


def test_what_is_unsure_is_not_doubted() -> None:
    assert doubted(posts([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9])).empty


def test_copies_that_disagree_get_the_label_of_most() -> None:
    texts = ["the same", "The SAME!", "the same.", "another", "other"]
    found = doubted(posts([1, 1, 0, 0, 1], [0.9, 0.9, 0.9, 0.1, 0.9], texts))
    assert found[["id", "suggested", "reason"]].to_numpy().tolist() == [["p2", 1, DISAGREEING]]
    # of two that disagree, the one whose score says so
    pair = doubted(posts([1, 0, 0, 1], [0.8, 0.8, 0.1, 0.9], ["same", "same", "a", "b"]))
    assert pair[["id", "suggested", "reason"]].to_numpy().tolist() == [["p1", 1, DISAGREEING]]


def test_one_class_and_no_posts() -> None:
    assert doubted(posts([1, 1], [0.1, 0.9])).empty
    assert list(doubted(posts([], [])).columns) == [
        "split", "id", "label", "suggested", "probability", "reason", "text",
    ]  # fmt: skip


def test_planted_mistakes_come_first() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 1000)
    probabilities = 1 / (1 + np.exp(-random.normal(4 * (2 * truth - 1), 1.5)))
    flipped = random.choice(1000, 50, replace=False)
    labels = truth.copy()
    labels[flipped] = 1 - labels[flipped]
    found = doubted(posts(labels.tolist(), probabilities.tolist()))
    first = {f"p{number}" for number in flipped} & set(found["id"].head(50))
    assert len(first) >= 40  # chance would put 2 or 3 there
    assert (found["suggested"] != found["label"]).all()


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1), st.sampled_from(["a", "b", "c d", "e"])), max_size=20))
def test_only_other_labels_are_suggested_and_the_order_of_rows_does_not_matter(
    rows: list[tuple[int, float, str]],
) -> None:
    table = posts([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    found = doubted(table)
    assert (found["suggested"] == 1 - found["label"]).all() and found["id"].is_unique
    again = doubted(table.iloc[::-1].reset_index(drop=True))
    assert sorted(found["id"]) == sorted(again["id"])


def test_the_file_has_the_words_of_the_card(tmp_path: Path) -> None:
    label = CARD.label.model_copy(update={"words": {"nein": 0, "ja": 1}})
    card = CARD.model_copy(update={"label": label})
    table = posts([0, 0, 0, 1, 1, 1], [0.1, 0.2, 0.9, 0.9, 0.8, 0.1], ["=1+1, x", "b", "c", "d", "e", "f"])
    found = doubtful_labels(table.drop(columns="probability"), table.assign(target="label"), card)
    path = write_label_errors(tmp_path / "deu.csv", found)
    assert path.read_text().splitlines() == [
        "split,id,label,suggested,probability,reason,text",
        f"train,p2,nein,ja,0.900000,{CONTRADICTED},c",
        f"train,p5,ja,nein,0.900000,{CONTRADICTED},f",
    ]
