"""The threshold for macro-F1, averaged over bootstrap resamples of out-of-fold scores.

The threshold that maximises macro-F1 on a sample jumps from one gap between scores to the next when the sample changes;
the average over resamples does not (bagging, Breiman 1996), and it is what holds on unseen posts.
"""

from typing import NamedTuple

import numpy as np

from polar_pipeline.metrics.scores import Floats, Ints, sorted_curve


class Threshold(NamedTuple):
    """A threshold on the probability scale and its standard deviation over the resamples."""

    value: float
    spread: float


def bagged_threshold(labels: Ints, probabilities: Floats, resamples: int, seed: int) -> Threshold:
    """Mean over bootstrap resamples of the threshold with the highest macro-F1.

    `labels` 0/1 and `probabilities` in [0, 1], both (n,). Ties within a resample are broken towards 0.5, so that scores
    that say nothing (constant, one class) give a threshold that says nothing either. O(n log n + resamples * n).
    """
    order = np.argsort(probabilities, kind="stable")
    ordered, scores = np.asarray(labels)[order].astype(float), np.asarray(probabilities, dtype=float)[order]
    generator = np.random.default_rng(seed)
    share = np.full(len(scores), 1.0 / len(scores))
    chosen = np.array([_best(ordered, scores, generator.multinomial(len(scores), share)) for _ in range(resamples)])
    return Threshold(float(chosen.mean()), float(chosen.std()))


def _best(labels: Floats, scores: Floats, weights: Ints) -> float:
    curve = sorted_curve(labels, scores, weights.astype(float))
    # the two ends stand for "all positive" and "all negative": just outside the probabilities' range
    thresholds = np.clip(curve.thresholds, 0.0, np.nextafter(1.0, 2.0))
    best = np.flatnonzero(curve.values >= curve.values.max() - 1e-12)
    return float(thresholds[best[np.argmin(np.abs(thresholds[best] - 0.5))]])
