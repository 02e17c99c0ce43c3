"""Temperature scaling finds the temperature that was put in, and scipy's optimum."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import expit

from polar_pipeline.decision.calibration import fit_temperature, sigmoid
from polar_pipeline_tests.decision.made import log_loss


def test_sigmoid_is_scipys_and_does_not_overflow() -> None:
    values = np.array([-1e4, -30, -1, 0, 1, 30, 1e4])
    with np.errstate(over="raise"):
        np.testing.assert_allclose(sigmoid(values), expit(values))


@pytest.mark.parametrize("temperature", [0.25, 1.0, 3.0])
def test_it_finds_the_temperature_of_the_scores(temperature: float) -> None:
    generator = np.random.default_rng(0)
    honest = generator.normal(0, 2, size=20_000)
    labels = (generator.random(20_000) < expit(honest)).astype(int)
    assert fit_temperature(labels, honest * temperature) == pytest.approx(temperature, rel=0.05)


@given(st.integers(0, 10_000))
def test_it_is_scipys_optimum(seed: int) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=80)
    labels = (generator.random(80) < expit(logits + generator.normal(size=80))).astype(int)
    found = minimize_scalar(lambda t: log_loss(labels, logits / np.exp(t)), bounds=(-4, 4), method="bounded")
    assert log_loss(labels, logits / fit_temperature(labels, logits)) <= found.fun + 1e-6


def test_degenerate_scores_give_an_end_of_the_range() -> None:
    labels = np.array([0, 1, 0, 1])
    assert fit_temperature(labels, np.zeros(4)) > 0
    assert fit_temperature(labels, np.array([-1.0, 1.0, -1.0, 1.0])) == pytest.approx(np.exp(-4), rel=1e-3)
    assert fit_temperature(labels, np.array([1.0, -1.0, 1.0, -1.0])) == pytest.approx(np.exp(4), rel=1e-3)
