"""Measures for binary scores and decisions: macro-F1 and its exact threshold curve, AUC, calibration.

Everywhere: `labels` are 0/1 integers of shape (n,), `scores` are finite floats of shape (n,), and a post is called
positive when its score is **at least** the threshold. Pure functions over numpy arrays; bad shapes raise ValueError.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]
Mask = NDArray[np.bool_]
Matrix = NDArray[np.float32]
_BINS = 10


class Curve(NamedTuple):
    """A measure at every threshold that changes a decision. Both arrays have shape (m,), thresholds ascending."""

    thresholds: Floats
    values: Floats


class Reliability(NamedTuple):
    """A reliability diagram: mean probability, share of positives and number of posts of each bin that has posts."""

    mean_probability: Floats
    share_positive: Floats
    posts: Ints


def macro_f1(labels: Ints, predictions: Ints) -> float:
    """Unweighted mean of the F1 of both classes, as scikit-learn's `f1_score(average="macro", zero_division=0)`.

    A class that is in neither `labels` nor `predictions` is left out of the mean, as there. Empty input: ValueError.
    """
    labels, predictions = _pair(labels, predictions)
    tp = float(np.sum((labels == 1) & (predictions == 1)))
    fp = float(np.sum((labels == 0) & (predictions == 1)))
    fn = float(np.sum((labels == 1) & (predictions == 0)))
    tn = float(len(labels)) - tp - fp - fn
    return float(macro_f1_of_counts(np.array(tp), np.array(fp), np.array(fn), np.array(tn)))


def macro_f1_of_counts(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
    """Macro-F1 of confusion counts, elementwise over arrays of one shape."""
    positive, negative = 2 * tp + fp + fn, 2 * tn + fp + fn
    f1_positive = np.divide(2 * tp, positive, out=np.zeros_like(positive, dtype=float), where=positive > 0)
    f1_negative = np.divide(2 * tn, negative, out=np.zeros_like(negative, dtype=float), where=negative > 0)
    classes = (positive > 0).astype(float) + (negative > 0)
    macro: Floats = np.divide(f1_positive + f1_negative, classes, out=np.zeros_like(classes), where=classes > 0)
    return macro


def threshold_curve(labels: Ints, scores: Floats, measure: Callable[..., Floats] = macro_f1_of_counts) -> Curve:
    """A measure of the counts tp, fp, fn and tn at every distinct decision, by one sort: O(n log n).

    Thresholds are -inf (all positive), the midpoints between neighbouring distinct scores, and +inf (all negative).
    """
    labels, scores = _pair(labels, scores)
    order = np.argsort(scores, kind="stable")
    return sorted_curve(labels[order].astype(float), scores[order], np.ones(len(scores)), measure)


def sorted_curve(
    labels: Floats, scores: Floats, weights: Floats, measure: Callable[..., Floats] = macro_f1_of_counts
) -> Curve:
    """The curve of rows that are sorted by ascending score already; `weights` (n,) count each row that many times."""
    cuts = np.concatenate([[0], np.flatnonzero(scores[1:] > scores[:-1]) + 1, [len(scores)]])
    lower, upper = scores[cuts[1:-1] - 1], scores[cuts[1:-1]]
    middle = lower / 2 + upper / 2  # (lower + upper) / 2 could overflow
    midpoints = np.where(middle > lower, middle, upper)  # between neighbouring floats there is no middle
    thresholds = np.concatenate([[-np.inf], midpoints, [np.inf]])
    below_positive = np.concatenate([[0.0], np.cumsum(weights * labels)])[cuts]
    below_negative = np.concatenate([[0.0], np.cumsum(weights * (1 - labels))])[cuts]
    tp, fp = below_positive[-1] - below_positive, below_negative[-1] - below_negative
    return Curve(thresholds, measure(tp, fp, below_positive, below_negative))


def auc(labels: Ints, scores: Floats) -> float:
    """Area under the ROC curve, ties count half. NaN when only one class is there."""
    from sklearn.metrics import roc_auc_score

    labels, scores = _pair(labels, scores)
    return float(roc_auc_score(labels, scores)) if 0 < labels.sum() < len(labels) else float("nan")


def reliability(labels: Ints, probabilities: Floats) -> Reliability:
    """Ten equal-width bins over [0, 1]; empty bins are left out. (Guo et al. 2017, section 2.)"""
    labels, probabilities = _pair(labels, probabilities)
    index = np.clip((probabilities * _BINS).astype(int), 0, _BINS - 1)
    count = np.bincount(index, minlength=_BINS)
    filled = count > 0
    mean = np.bincount(index, weights=probabilities, minlength=_BINS)[filled] / count[filled]
    share = np.bincount(index, weights=labels, minlength=_BINS)[filled] / count[filled]
    return Reliability(mean, share, count[filled])


def expected_calibration_error(labels: Ints, probabilities: Floats) -> float:
    """Mean distance of probability and share of positives over the bins, weighted by count (Guo et al. 2017, eq. 3)."""
    diagram = reliability(labels, probabilities)
    return float(np.average(np.abs(diagram.mean_probability - diagram.share_positive), weights=diagram.posts))


def _pair(labels: Ints, values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    labels, values = np.asarray(labels), np.asarray(values)
    if labels.ndim != 1 or labels.shape != values.shape or len(labels) == 0:
        raise ValueError(f"two arrays of one length above 0 are needed, got shapes {labels.shape} and {values.shape}")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("labels are 0 or 1")
    if not np.isfinite(values).all():
        raise ValueError("scores should be finite, some are NaN or infinite")
    return labels, values
