"""Class weights: exact small cases, every rule, and the best of a grid."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from polar_pipeline.decision.class_weights import choose_class_weights, chosen_classes
from polar_pipeline.decision.thresholds import ARGMAX, BAGGED, HALF, PLUG_IN, RULES
from polar_pipeline.metrics.metric import task_metric
from polar_pipeline.metrics.scores import Floats, Ints

MACRO, ACCURACY = task_metric("macro-F1", "multiclass"), task_metric("accuracy", "multiclass")


def made(posts: int = 400, classes: int = 3, seed: int = 0) -> tuple[Ints, Floats]:
    """Labels with a rare class, and probabilities of models that are too shy of it."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(classes, posts, p=np.array([0.1, 0.6, 0.3] if classes == 3 else [1 / classes] * classes))
    logits = generator.normal(size=(posts, classes)) + 2 * np.eye(classes)[labels] - [2.0] + np.arange(classes) * 0.5
    return labels, 1 / (1 + np.exp(-logits))


def figure(labels: Ints, probabilities: Floats, weights: Floats) -> float:
    return float(f1_score(labels, chosen_classes(probabilities, weights), average="macro"))


def test_the_ascent_finds_what_a_grid_finds() -> None:
    labels, probabilities = made()
    grid = [np.array([1.0, a, b]) for a, b in itertools.product(np.exp(np.linspace(-3, 3, 41)), repeat=2)]
    best = max(figure(labels, probabilities, weights) for weights in grid)
    found = choose_class_weights(ARGMAX, labels, probabilities, 1, 0, MACRO)
    assert figure(labels, probabilities, found) >= best - 0.01
    assert figure(labels, probabilities, found) > figure(labels, probabilities, np.ones(3)) + 0.02
    assert np.exp(np.log(found).mean()) == pytest.approx(1.0)


def test_weights_generalise_to_posts_of_the_same_kind() -> None:
    labels, probabilities = made(3000)
    new, unseen = made(3000, seed=1)
    plain = figure(new, unseen, np.ones(3))
    for rule in (ARGMAX, BAGGED):
        weights = choose_class_weights(rule, labels, probabilities, 20, 0, MACRO)
        assert figure(new, unseen, weights) > plain + 0.02


def test_accuracy_is_served_too() -> None:
    labels, probabilities = made(2000)
    weights = choose_class_weights(ARGMAX, labels, probabilities, 1, 0, ACCURACY)
    before, after = (accuracy_score(labels, chosen_classes(probabilities, one)) for one in (np.ones(3), weights))
    assert after > before


def test_half_and_classes_that_are_told_apart_need_no_weights() -> None:
    labels, probabilities = made()
    np.testing.assert_array_equal(choose_class_weights(HALF, labels, probabilities, 1, 0, MACRO), np.ones(3))
    sure = np.where(np.eye(3)[labels] == 1, 0.9, 0.1)
    for rule in RULES:
        np.testing.assert_allclose(choose_class_weights(rule, labels, sure, 5, 0, MACRO), np.ones(3))


def test_plug_in_uses_no_label() -> None:
    labels, probabilities = made()
    one, other = (choose_class_weights(PLUG_IN, found, probabilities, 1, 0, MACRO) for found in (labels, labels[::-1]))
    np.testing.assert_array_equal(one, other)


@given(st.integers(1, 30), st.integers(2, 5), st.integers(0, 10**6), st.sampled_from(RULES))
def test_weights_are_always_finite_and_never_hurt_the_sample_they_are_best_on(
    posts: int, classes: int, seed: int, rule: str
) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, posts)
    probabilities = generator.integers(0, 4, (posts, classes)) / 3  # ties and certain ones
    weights = choose_class_weights(rule, labels, probabilities, 3, seed, MACRO)
    assert np.isfinite(weights).all() and (weights > 0).all() and len(weights) == classes
    if rule == ARGMAX:
        given, plain = (chosen_classes(np.maximum(probabilities, 1e-12), one) for one in (weights, np.ones(classes)))
        truth = np.eye(classes, dtype=int)
        assert MACRO.value(truth[labels], truth[given]) >= MACRO.value(truth[labels], truth[plain]) - 1e-9
