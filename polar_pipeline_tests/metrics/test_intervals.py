"""The multinomial bootstrap is the bootstrap over posts."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from polar_pipeline.metrics.intervals import (
    confusion,
    mean_interval,
    metric_interval,
    metric_resamples,
    paired_interval,
    paired_resamples,
)


def _case(posts: int = 300) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    labels = (generator.random(posts) < 0.3).astype(int)
    return labels, np.where(generator.random(posts) < 0.8, labels, 1 - labels)


def test_it_agrees_with_resampling_the_posts_one_by_one() -> None:
    labels, predictions = _case()
    generator = np.random.default_rng(2)
    rows = generator.integers(0, len(labels), size=(2000, len(labels)))
    slow = np.array([f1_score(labels[row], predictions[row], average="macro") for row in rows])
    fast = metric_resamples(labels, predictions, 4000, seed=3)
    np.testing.assert_allclose(
        np.quantile(fast, [0.025, 0.5, 0.975]), np.quantile(slow, [0.025, 0.5, 0.975]), atol=0.004
    )


def test_the_interval_holds_the_estimate_and_shrinks_with_posts() -> None:
    small, large = (metric_interval(*_case(posts), resamples=1000, seed=0) for posts in (100, 10_000))
    assert small.low < small.value < small.high
    assert large.high - large.low < (small.high - small.low) / 5


def test_same_seed_same_interval_and_other_seed_other() -> None:
    labels, predictions = _case()
    one = metric_interval(labels, predictions, 500, seed=1)
    assert one == metric_interval(labels, predictions, 500, seed=1)
    assert one != metric_interval(labels, predictions, 500, seed=2)


def test_degenerate_inputs() -> None:
    assert metric_interval(np.array([1]), np.array([1]), 100, 0) == (1.0, 1.0, 1.0)
    assert metric_interval(np.array([0, 0]), np.array([1, 1]), 100, 0) == (0.0, 0.0, 0.0)


def test_the_mean_of_languages_is_surer_than_each() -> None:
    draws = [metric_resamples(*_case(), 2000, seed) for seed in range(16)]
    mean = mean_interval([0.8] * 16, draws)
    low, high = np.quantile(draws[0], [0.025, 0.975])
    assert mean.value == pytest.approx(0.8)
    assert mean.high - mean.low == pytest.approx((high - low) / 4, rel=0.2)


def test_confusion_is_sklearns() -> None:
    assert confusion(*_case()) == tuple(confusion_matrix(*_case()).ravel())


def test_paired_resamples_agree_with_resampling_the_posts_one_by_one() -> None:
    labels, first = _case()
    second = np.where(np.random.default_rng(5).random(len(labels)) < 0.9, first, labels)
    rows = np.random.default_rng(2).integers(0, len(labels), size=(2000, len(labels)))
    slow = [
        f1_score(labels[row], first[row], average="macro") - f1_score(labels[row], second[row], average="macro")
        for row in rows
    ]
    fast = paired_resamples(labels, first, second, 4000, seed=3)
    np.testing.assert_allclose(
        np.quantile(fast, [0.025, 0.5, 0.975]), np.quantile(slow, [0.025, 0.5, 0.975]), atol=0.004
    )


def test_a_paired_interval_is_narrow_mirrors_and_is_nothing_for_the_same() -> None:
    labels, first = _case(2000)
    second = np.where(np.arange(len(labels)) % 50 == 0, labels, first)
    difference, mirrored = (
        paired_interval(labels, first, second, 2000, 0),
        paired_interval(labels, second, first, 2000, 0),
    )
    assert difference.value == pytest.approx(-mirrored.value)
    alone = metric_interval(labels, first, 2000, 0)
    assert difference.high - difference.low < (alone.high - alone.low) / 2
    assert paired_interval(labels, first, first, 100, 0) == (0.0, 0.0, 0.0)
