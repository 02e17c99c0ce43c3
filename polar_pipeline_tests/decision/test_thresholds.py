"""The bagged threshold: near the best one, steadier than it, and harmless on scores that say nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.decision.thresholds import bagged_threshold
from polar_pipeline.metrics.scores import macro_f1, macro_f1_curve


def _scored(posts: int, prevalence: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = (generator.random(posts) < prevalence).astype(int)
    return labels, 1 / (1 + np.exp(-(generator.normal(size=posts) + 2 * labels - 2)))


def test_it_separates_what_can_be_separated() -> None:
    labels = np.array([0] * 30 + [1] * 30)
    threshold = bagged_threshold(labels, np.where(labels == 1, 0.8, 0.3), 50, seed=0)
    assert threshold.value == pytest.approx(0.55)
    assert threshold.spread == pytest.approx(0.0)


def test_it_is_steadier_from_sample_to_sample_than_the_best_of_each_sample() -> None:
    bagged, best = [], []
    for seed in range(30):
        labels, probabilities = _scored(300, 0.2, seed)
        bagged.append(bagged_threshold(labels, probabilities, 50, seed=0).value)
        curve = macro_f1_curve(labels, probabilities)
        best.append(curve.thresholds[curve.values.argmax()])
    assert np.std(bagged) < 0.8 * np.std(best)


def test_it_scores_near_the_optimum_of_its_sample() -> None:
    labels, probabilities = _scored(3000, 0.1, seed=5)
    threshold = bagged_threshold(labels, probabilities, 100, seed=0)
    assert (
        macro_f1(labels, (probabilities >= threshold.value).astype(int))
        > macro_f1_curve(labels, probabilities).values.max() - 0.01
    )


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_it_is_always_a_usable_number_and_ignores_the_order_of_posts(scored: list[tuple[int, float]]) -> None:
    labels, probabilities = np.array([a for a, _ in scored]), np.array([b for _, b in scored])
    threshold = bagged_threshold(labels, probabilities, 5, seed=0)
    assert 0 <= threshold.value <= np.nextafter(1, 2)
    assert threshold == bagged_threshold(labels, probabilities, 5, seed=0)


@pytest.mark.parametrize("labels", [[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
def test_constant_scores_and_one_class(labels: list[int]) -> None:
    threshold = bagged_threshold(np.array(labels), np.full(4, 0.4), 20, seed=0)
    assert 0 <= threshold.value <= np.nextafter(1, 2)


def test_one_class_is_decided_for_that_class() -> None:
    probabilities = np.linspace(0.1, 0.9, 9)
    assert (probabilities >= bagged_threshold(np.ones(9, dtype=int), probabilities, 20, 0).value).all()
    assert (probabilities < bagged_threshold(np.zeros(9, dtype=int), probabilities, 20, 0).value).all()
