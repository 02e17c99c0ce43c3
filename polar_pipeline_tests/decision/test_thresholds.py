"""Threshold rules: exact where they say so, steady where they say so, and harmless on scores that say nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from polar_pipeline.decision.thresholds import (
    RULES,
    bagged_threshold,
    best_threshold,
    choose_threshold,
    matching_threshold,
    plug_in_threshold,
)
from polar_pipeline.metrics.scores import macro_f1, threshold_curve


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
        curve = threshold_curve(labels, probabilities)
        best.append(curve.thresholds[curve.values.argmax()])
    assert np.std(bagged) < 0.8 * np.std(best)


def test_it_scores_near_the_optimum_of_its_sample() -> None:
    labels, probabilities = _scored(3000, 0.1, seed=5)
    threshold = bagged_threshold(labels, probabilities, 100, seed=0)
    assert (
        macro_f1(labels, (probabilities >= threshold.value).astype(int))
        > threshold_curve(labels, probabilities).values.max() - 0.01
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


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.5000001, 1.0])), min_size=1, max_size=40
    )
)
def test_the_best_threshold_is_the_best_of_all_by_trying_them(scored: list[tuple[int, float]]) -> None:
    labels, probabilities = np.array([a for a, _ in scored]), np.array([b for _, b in scored])
    found = f1_score(labels, probabilities >= best_threshold(labels, probabilities), average="macro", zero_division=0)
    tried = [f1_score(labels, probabilities >= at, average="macro", zero_division=0) for at in (*probabilities, 2.0)]
    assert found == pytest.approx(max(tried))


def test_plug_in_finds_the_optimum_where_probabilities_are_honest() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.beta(0.5, 4.0, size=20_000)
    labels = (generator.random(20_000) < probabilities).astype(int)
    value = macro_f1(labels, (probabilities >= plug_in_threshold(probabilities)).astype(int))
    assert value == pytest.approx(threshold_curve(labels, probabilities).values.max(), abs=0.005)


def test_plug_in_of_certain_probabilities_is_the_best_threshold() -> None:
    labels = np.array([0, 0, 1, 0, 1, 1, 1])
    assert plug_in_threshold(labels.astype(float)) == best_threshold(labels, labels.astype(float)) == 0.5


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_bears_one_post_one_class_constant_scores_and_one_percent(rule: str) -> None:
    rare, probabilities = _scored(3000, 0.01, seed=1)
    cases = [(np.array([1]), np.array([0.3])), (np.zeros(5, dtype=int), np.full(5, 0.2)), (rare, probabilities)]
    for labels, scores in cases:
        threshold = choose_threshold(rule, labels, scores, 20, 0)
        assert 0 <= threshold.value <= np.nextafter(1, 2) and threshold.spread >= 0


@pytest.mark.parametrize("rule", RULES[1:])
def test_nan_and_other_shapes_are_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="NaN"):
        choose_threshold(rule, np.array([0, 1]), np.array([0.5, np.nan]), 5, 0)
    with pytest.raises(ValueError, match="one length above 0"):
        choose_threshold(rule, np.zeros(0, dtype=int), np.zeros(0), 5, 0)


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(ValueError, match="'vibes' is none of half, argmax, bagged, plug_in"):
        choose_threshold("vibes", np.array([0, 1]), np.array([0.1, 0.9]), 5, 0)


def test_a_million_posts() -> None:
    labels, probabilities = _scored(1_000_000, 0.01, seed=2)
    threshold = best_threshold(labels, probabilities)
    assert threshold == pytest.approx(bagged_threshold(labels, probabilities, 3, 0).value, abs=0.05)
    assert (
        macro_f1(labels, (probabilities >= threshold).astype(int))
        == threshold_curve(labels, probabilities).values.max()
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60, unique=True), st.floats(0, 1))
def test_rate_matching_calls_that_share_positive(probabilities: list[float], share: float) -> None:
    scores = np.array(probabilities)
    positive = int((scores >= matching_threshold(scores, share)).sum())
    assert abs(positive - share * len(scores)) <= 0.5 + 1e-9


@pytest.mark.parametrize(("share", "positive"), [(0.0, 0), (1.0, 4), (0.2, 0), (0.5, 3)])
def test_ties_stay_together(share: float, positive: int) -> None:
    scores = np.array([0.1, 0.7, 0.7, 0.7])
    assert (scores >= matching_threshold(scores, share)).sum() == positive


def test_of_a_tied_block_the_nearer_side_is_taken() -> None:
    scores = np.full(100, 0.4)
    assert (scores >= matching_threshold(scores, 0.1)).sum() == 0
    assert (scores >= matching_threshold(scores, 0.9)).sum() == 100
