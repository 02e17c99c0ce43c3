"""Every measure, recomputed with scikit-learn, and on degenerate inputs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import f1_score, roc_auc_score

from polar_pipeline.metrics.scores import auc, expected_calibration_error, macro_f1, reliability, threshold_curve

PAIRS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=60)
# few distinct values, so that ties are common
SCORED = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([-2.0, -0.5, 0.0, 0.1, 0.5, 3.0])), min_size=1, max_size=60
)


@given(PAIRS)
def test_macro_f1_is_sklearns(pairs: list[tuple[int, int]]) -> None:
    labels, predictions = np.array(pairs).T
    assert macro_f1(labels, predictions) == pytest.approx(
        f1_score(labels, predictions, average="macro", zero_division=0)
    )


@given(SCORED)
def test_curve_is_sklearns_at_every_threshold(scored: list[tuple[int, float]]) -> None:
    labels, scores = np.array([a for a, _ in scored]), np.array([b for _, b in scored])
    curve = threshold_curve(labels, scores)
    assert len(curve.thresholds) == len(np.unique(scores)) + 1
    assert (np.diff(curve.thresholds) > 0).all()
    for threshold, value in zip(*curve, strict=True):
        expected = f1_score(labels, scores >= threshold, average="macro", zero_division=0)
        assert value == pytest.approx(expected)


@pytest.mark.parametrize(("low", "high"), [(-1.5e308, 1.5e308), (1.0, np.nextafter(1.0, 2.0)), (0.0, 5e-324)])
@pytest.mark.filterwarnings("error")
def test_scores_at_the_ends_of_floating_point_are_still_told_apart(low: float, high: float) -> None:
    labels, scores = np.array([0, 1]), np.array([low, high])
    curve = threshold_curve(labels, scores)
    assert macro_f1(labels, (scores >= curve.thresholds[curve.values.argmax()]).astype(int)) == 1.0


@given(SCORED)
def test_auc_is_sklearns(scored: list[tuple[int, float]]) -> None:
    labels, scores = np.array([a for a, _ in scored]), np.array([b for _, b in scored])
    if len(np.unique(labels)) == 2:
        assert auc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    else:
        assert np.isnan(auc(labels, scores))


def test_reliability_is_sklearns() -> None:
    generator = np.random.default_rng(0)
    probabilities = generator.random(500)
    labels = (generator.random(500) < probabilities**2).astype(int)
    diagram = reliability(labels, probabilities)
    share, mean = calibration_curve(labels, probabilities, n_bins=10)
    np.testing.assert_allclose(diagram.share_positive, share)
    np.testing.assert_allclose(diagram.mean_probability, mean)
    assert diagram.posts.sum() == 500


def test_calibration_error_by_hand() -> None:
    # bins 0.1-0.2 (mean 0.15, share 0.5) and 0.9-1 (mean 0.95, share 1): 2/4 * 0.35 + 2/4 * 0.05
    error = expected_calibration_error(np.array([0, 1, 1, 1]), np.array([0.15, 0.15, 0.95, 0.95]))
    assert error == pytest.approx(0.2)
    assert expected_calibration_error(np.array([1]), np.array([1.0])) == 0.0


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], [], "length above 0"),
        ([0, 1], [0.5], "one length"),
        ([0, 2], [0.1, 0.2], "0 or 1"),
        ([0, 1], [0.1, np.nan], "finite"),
    ],
)
def test_bad_input_is_named(labels: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        threshold_curve(np.array(labels), np.array(scores))
