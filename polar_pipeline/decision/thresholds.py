"""Rules that choose the threshold for a measure such as macro-F1 from labelled posts and their probabilities.

The threshold that maximises macro-F1 on a sample jumps when a few posts change. Its average over bootstrap resamples
does not (bagging, Breiman 1996), and does better on unseen posts.
"""

from typing import NamedTuple

import numpy as np

from polar_pipeline.metrics.metric import Measure
from polar_pipeline.metrics.scores import Floats, Ints, macro_f1_of_counts, sorted_curve

HALF, ARGMAX, BAGGED, PLUG_IN = "half", "argmax", "bagged", "plug_in"
RULES = (HALF, ARGMAX, BAGGED, PLUG_IN)


class Threshold(NamedTuple):
    """A threshold on the probability scale and its standard deviation over the resamples (0 for rules without any)."""

    value: float
    spread: float


def choose_threshold(
    rule: str,
    labels: Ints,
    probabilities: Floats,
    resamples: int,
    seed: int,
    measure: Measure = macro_f1_of_counts,
) -> Threshold:
    """The threshold by one of the rules; `labels` 0/1 and `probabilities` in [0, 1], both (n,).

    Raises ValueError for an unknown rule.
    """
    if rule == HALF:
        return Threshold(0.5, 0.0)
    if rule == ARGMAX:
        return Threshold(best_threshold(labels, probabilities, measure), 0.0)
    if rule == PLUG_IN:
        return Threshold(plug_in_threshold(probabilities, measure), 0.0)
    if rule == BAGGED:
        return bagged_threshold(labels, probabilities, resamples, seed, measure)
    raise ValueError(f"threshold rule {rule!r} is none of {', '.join(RULES)}")


def best_threshold(labels: Ints, probabilities: Floats, measure: Measure = macro_f1_of_counts) -> float:
    """The threshold with the highest measure on these posts, by one sort: O(n log n).

    Ties are broken towards 0.5, so that scores that say nothing (constant, one class) give a threshold that says
    nothing.
    """
    ordered, scores = _sorted(labels, probabilities)
    return _best(ordered, scores, np.ones(len(scores)), measure)


def bagged_threshold(
    labels: Ints, probabilities: Floats, resamples: int, seed: int, measure: Measure = macro_f1_of_counts
) -> Threshold:
    """Mean over bootstrap resamples of the best threshold. O(n log n + resamples * n)."""
    ordered, scores = _sorted(labels, probabilities)
    generator = np.random.default_rng(seed)
    share = np.full(len(scores), 1.0 / len(scores))
    chosen = np.array(
        [
            _best(ordered, scores, generator.multinomial(len(scores), share).astype(float), measure)
            for _ in range(resamples)
        ]
    )
    return Threshold(float(chosen.mean()), float(chosen.std()))


def plug_in_threshold(probabilities: Floats, measure: Measure = macro_f1_of_counts) -> float:
    """The threshold whose expected measure is highest when the probabilities are taken as true.

    Each post counts as a positive by its probability and as a negative by the rest (expected counts in place of counts,
    after Lipton et al. 2014). No label is used, so the threshold is as good as the calibration.
    """
    scores, _ = _sorted(probabilities, probabilities)
    return _best(scores, scores, np.ones(len(scores)), measure)


def matching_threshold(probabilities: Floats, share: float) -> float:
    """The threshold at which `share` of these posts are positive, as nearly as ties allow, for a strong shift.

    It looks at the unlabelled test posts together, so it is transductive. It is used only where the train-or-test AUC
    says that the level of the scores means nothing on test.
    """
    ordered = np.sort(np.asarray(probabilities, dtype=float))
    cuts = np.concatenate([[0], np.flatnonzero(ordered[1:] > ordered[:-1]) + 1, [len(ordered)]])
    below = int(cuts[np.argmin(np.abs(len(ordered) - cuts - share * len(ordered)))])
    if below == 0:
        return 0.0
    if below == len(ordered):
        return float(np.nextafter(1.0, 2.0))
    middle = (ordered[below - 1] + ordered[below]) / 2
    return float(middle if middle > ordered[below - 1] else ordered[below])


def _sorted(labels: Floats | Ints, probabilities: Floats) -> tuple[Floats, Floats]:
    """Both as float64, ascending by probability. Raises ValueError for different shapes, NaN and empty arrays."""
    counted: Floats = np.asarray(labels, dtype=float)
    scores: Floats = np.asarray(probabilities, dtype=float)
    if counted.shape != scores.shape or scores.ndim != 1 or not len(scores):
        raise ValueError(f"two arrays of one length above 0 are needed, got shapes {counted.shape} and {scores.shape}")
    if not np.isfinite(scores).all() or not np.isfinite(counted).all():
        raise ValueError("labels and probabilities should be finite, some are NaN or infinite")
    order = np.argsort(scores, kind="stable")
    return counted[order], scores[order]


def _best(labels: Floats, scores: Floats, weights: Floats, measure: Measure) -> float:
    curve = sorted_curve(labels, scores, weights, measure)
    # the two ends stand for "all positive" and "all negative": just outside the probabilities' range
    inside = np.clip(curve.thresholds, 0.0, np.nextafter(1.0, 2.0))
    best = np.flatnonzero(curve.values >= curve.values.max() - 1e-12)
    return float(inside[best[np.argmin(np.abs(inside[best] - 0.5))]])
