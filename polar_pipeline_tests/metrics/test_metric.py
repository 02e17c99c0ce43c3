"""Metrics of one and of several labels are scikit-learn's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from polar_pipeline.metrics.intervals import metric_interval, metric_resamples, paired_interval
from polar_pipeline.metrics.metric import task_metric

SIZES = st.tuples(st.integers(1, 40), st.integers(2, 5), st.integers(0, 10**6))


@given(SIZES)
def test_multilabel(sizes: tuple[int, int, int]) -> None:
    posts, labels, seed = sizes
    generator = np.random.default_rng(seed)
    truth, found = (generator.random((posts, labels)) < 0.2 for _ in range(2))
    truth, found = truth.astype(int), found.astype(int)
    expected = f1_score(truth, found, average="macro", zero_division=0)
    for name in ("macro-F1", "F1"):
        assert task_metric(name, "multilabel").value(truth, found) == pytest.approx(expected)
    mean = np.mean([accuracy_score(*pair) for pair in zip(truth.T, found.T, strict=True)])
    assert task_metric("accuracy", "multilabel").value(truth, found) == pytest.approx(mean)


@given(SIZES)
def test_multiclass(sizes: tuple[int, int, int]) -> None:
    posts, classes, seed = sizes
    generator = np.random.default_rng(seed)
    truth, found = generator.integers(0, classes, (2, posts))
    hot = np.eye(classes, dtype=int)
    value = task_metric("macro-F1", "multiclass").value(hot[truth], hot[found])
    assert value == pytest.approx(f1_score(truth, found, average="macro"))
    value = task_metric("accuracy", "multiclass").value(hot[truth], hot[found])
    assert value == pytest.approx(accuracy_score(truth, found))


@given(st.integers(1, 40), st.integers(0, 10**6))
def test_binary(posts: int, seed: int) -> None:
    truth, found = np.random.default_rng(seed).integers(0, 2, (2, posts))
    expected = {
        "macro-F1": f1_score(truth, found, average="macro"),
        "F1": f1_score(truth, found, zero_division=0),
        "accuracy": accuracy_score(truth, found),
    }
    for name, value in expected.items():
        assert task_metric(name, "binary").value(truth, found) == pytest.approx(value)
        assert task_metric(name, "binary").value(truth[:, None], found[:, None]) == pytest.approx(value)


def test_a_label_without_positives_counts_as_0_and_a_class_without_posts_is_left_out() -> None:
    truth = np.array([[1, 0], [0, 0]])
    assert task_metric("macro-F1", "multilabel").value(truth, truth) == 0.5
    assert task_metric("macro-F1", "multiclass").value(np.array([[1, 0, 0], [0, 1, 0]]), np.array([[1, 0, 0]] * 2)) == (
        pytest.approx(1 / 3)
    )


def test_the_interval_of_several_labels_is_that_of_resampled_posts() -> None:
    generator = np.random.default_rng(0)
    truth = (generator.random((200, 3)) < [0.5, 0.2, 0.1]).astype(int)
    found = np.where(generator.random((200, 3)) < 0.8, truth, 1 - truth)
    metric = task_metric("macro-F1", "multilabel")
    rows = generator.integers(0, 200, (1500, 200))
    slow = [f1_score(truth[row], found[row], average="macro", zero_division=0) for row in rows]
    fast = metric_resamples(truth, found, 4000, 1, metric)
    np.testing.assert_allclose(
        np.quantile(fast, [0.025, 0.5, 0.975]), np.quantile(slow, [0.025, 0.5, 0.975]), atol=0.01
    )
    interval = metric_interval(truth, found, 4000, 1, metric)
    assert interval.low < interval.value < interval.high
    assert tuple(paired_interval(truth, found, found, 100, 0, metric=metric)) == (0, 0, 0)


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        task_metric("macro-F1", "binary").value(np.zeros(2), np.zeros(3))
