"""Folds: groups whole, classes even, the same for the same posts, and never a test post."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.corpus.folds import assign_folds, deal
from polar_pipeline.corpus.text import duplicate_groups
from polar_pipeline.errors import InputError
from polar_pipeline.settings.decision import FoldSettings
from polar_pipeline_tests.corpus.tables import posts_of

BOTH = FoldSettings(count=3, fit_on="train+dev")
TRAIN = FoldSettings(count=3, fit_on="train")

# few distinct texts, so that there are groups, some with both labels; distinct enough that all classes can be dealt
rows = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1), st.sampled_from(["train", "dev"])), max_size=60)


def table(drawn: list[tuple[int, int, str]]) -> pd.DataFrame:
    """Drawn posts, three sure ones of each class in train, and two test posts, one a duplicate of a train post."""
    sure = [(100 + number, number % 2, "train") for number in range(6)]
    fitted = [(f"eng_{row}", f"text {text}", label, split) for row, (text, label, split) in enumerate(sure + drawn)]
    return posts_of([*fitted, ("eng_t1", "text 100!", None, "test"), ("eng_t2", "other", None, "test")])


@given(drawn=rows, seed=st.integers(0, 3), settings=st.sampled_from([BOTH, TRAIN]))
def test_what_always_holds(drawn: list[tuple[int, int, str]], seed: int, settings: FoldSettings) -> None:
    posts = table(drawn)
    before = posts.copy()
    folded = assign_folds(posts, settings, seed)
    pd.testing.assert_frame_equal(posts, before)
    pd.testing.assert_frame_equal(folded.drop(columns="fold"), posts.drop(columns="fold"))
    assert str(folded["fold"].dtype) == "Int8"
    fitted = folded["split"].isin(settings.fit_on.split("+"))
    assert set(folded.loc[fitted, "fold"]) == {0, 1, 2}
    assert set(folded.loc[~fitted, "fold"]) == {-1}
    held = folded[fitted].assign(group=duplicate_groups(folded[fitted]))
    assert (held.groupby("group")["fold"].nunique() == 1).all(), "a group is in two folds"
    assert (held.groupby("fold")["label"].nunique() == 2).all(), "a fold lacks a class"


@given(drawn=rows, seed=st.integers(0, 3), order=st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_nothing(drawn: list[tuple[int, int, str]], seed: int, order: object) -> None:
    posts = table(drawn)
    shuffled = posts.sample(frac=1, random_state=order.randint(0, 2**31 - 1))  # type: ignore[attr-defined]
    keys = ["split", "id"]
    one, other = (assign_folds(frame, BOTH, seed).set_index(keys)["fold"].sort_index() for frame in (posts, shuffled))
    pd.testing.assert_series_equal(one, other)


@given(st.integers(3, 60), st.integers(3, 60), st.integers(2, 3), st.integers(0, 5))
def test_single_posts_are_dealt_evenly(negatives: int, positives: int, count: int, seed: int) -> None:
    labels = np.repeat([0, 1], [negatives, positives])
    folds = deal(np.arange(len(labels)), labels, count, seed)
    for label in (0, 1):
        sizes = np.bincount(folds[labels == label], minlength=count)
        assert sizes.max() - sizes.min() <= 1
    sizes = np.bincount(folds, minlength=count)
    assert sizes.max() - sizes.min() <= 2


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 1)), min_size=4, max_size=40), st.integers(0, 3))
def test_classes_differ_by_no_more_than_one_group(drawn: list[tuple[int, int]], seed: int) -> None:
    sizes, classes = (np.array(column) for column in zip(*drawn, strict=True))
    labels, groups = np.repeat(classes, sizes), np.repeat(np.arange(len(sizes)), sizes)
    folds = deal(groups, labels, 2, seed)
    for label in set(classes):
        held = np.bincount(folds[labels == label], minlength=2)
        assert held.max() - held.min() <= sizes[classes == label].max()


def test_another_seed_is_another_deal() -> None:
    posts = table([(number, number % 2, "train") for number in range(30)])
    one, same, other = (assign_folds(posts, BOTH, seed)["fold"].tolist() for seed in (0, 0, 1))
    assert one == same != other


def test_a_mixed_group_does_not_cost_a_fold_its_class() -> None:
    # were the smaller group with both labels dealt last, one fold would be left without a class
    labels, groups = np.array([1, 1, 1, 0, 0, 0, 0, 1]), np.array([0, 0, 0, 1, 1, 1, 2, 2])
    for seed in range(10):
        folds = deal(groups, labels, 2, seed)
        assert set(zip(folds.tolist(), labels.tolist(), strict=True)) == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_the_index_of_the_table_changes_nothing() -> None:
    posts = table([])
    same = assign_folds(posts.set_index(pd.Index([5] * len(posts))), BOTH, 0)
    pd.testing.assert_frame_equal(same, assign_folds(posts, BOTH, 0))


def test_posts_without_content_are_not_one_group() -> None:
    posts = posts_of([(f"eng_{row}", "@USER", row % 2, "train") for row in range(6)])
    assert sorted(assign_folds(posts, TRAIN, 0)["fold"]) == [0, 0, 1, 1, 2, 2]


def test_a_class_with_too_few_posts_names_the_remedy() -> None:
    negatives = [(f"deu_{row}", f"text {row}", 0, "train") for row in range(5)]
    # three posts, but two of them are the same
    positives = [("deu_7", "x", 1, "train"), ("deu_8", "X!", 1, "dev"), ("deu_9", "y", 1, "train")]
    with pytest.raises(InputError) as caught:
        assign_folds(posts_of(negatives + positives), BOTH, 0)
    assert str(caught.value) == (
        "there are 2 distinct posts labelled 1 in train+dev, fewer than the 3 folds: set folds.count to at most 2."
    )


def test_a_class_that_is_not_there() -> None:
    posts = posts_of([(f"deu_{row}", f"text {row}", 1, "train") for row in range(5)])
    with pytest.raises(
        InputError, match=r"there are 0 distinct posts labelled 0 in train, .* give more posts of that class"
    ):
        assign_folds(posts, TRAIN, 0)
