"""Weights of classes: a post gets the class with the highest weight times probability.

Classes differ in how many posts they have and in how sure their models are, so the likeliest class is not the best
answer for macro-F1. The weights that are best on a sample are found by coordinate ascent, each exactly by one sort;
like thresholds, they are averaged over bootstrap resamples (see thresholds.py).
"""

import numpy as np

from polar_pipeline.decision.thresholds import BAGGED, HALF, PLUG_IN
from polar_pipeline.metrics.metric import Metric
from polar_pipeline.metrics.scores import Floats, Ints

_SMALLEST = 1e-12  # of a probability, so that its logarithm is finite
_PASSES = 5  # over all classes; two or three change something
_BETTER = 1e-9
_RESAMPLES_OF_ALL = 400  # shared among the classes, because each resample costs a sort a class
_FEWEST_RESAMPLES = 8
_FURTHEST = 5.0  # logarithm of a weight: beyond it, a class would always or never be given


def choose_class_weights(
    rule: str, labels: Ints, probabilities: Floats, resamples: int, seed: int, metric: Metric
) -> Floats:
    """Weights (classes,) with a geometric mean of 1, by one of the rules for thresholds.

    `labels` are the numbers of the classes (posts,), `probabilities` in [0, 1] (posts, classes). half: all weights are
    1; plug_in: the probabilities are taken at their word in place of labels.
    """
    logs, classes = np.log(np.maximum(probabilities, _SMALLEST)), probabilities.shape[1]
    if rule == HALF:
        return np.ones(classes)
    truth = np.eye(classes)[labels]
    if rule == PLUG_IN:
        truth = probabilities / np.maximum(probabilities.sum(axis=1, keepdims=True), _SMALLEST)
    if rule != BAGGED:
        alone: Floats = np.exp(_ascend(logs, truth, np.ones(len(labels)), metric))
        return alone
    generator = np.random.default_rng(seed)
    share = np.full(len(labels), 1 / len(labels))
    count = min(resamples, max(_RESAMPLES_OF_ALL // classes, _FEWEST_RESAMPLES))
    start = _ascend(logs, truth, np.ones(len(labels)), metric)
    drawn = (generator.multinomial(len(labels), share).astype(float) for _ in range(count))
    found: Floats = np.exp(np.mean([_ascend(logs, truth, weights, metric, start) for weights in drawn], axis=0))
    return found


def chosen_classes(probabilities: Floats, weights: Floats) -> Ints:
    """The class of each post (posts,): the first of the highest weight times probability."""
    chosen: Ints = np.argmax(probabilities * weights, axis=1)
    return chosen


def _ascend(logs: Floats, truth: Floats, counted: Floats, metric: Metric, start: Floats | None = None) -> Floats:
    """Logarithms of the weights, with a mean of 0. `counted` (posts,) is how often each post counts."""
    offsets, best = np.zeros(logs.shape[1]) if start is None else start.copy(), -1.0
    weighted = truth * counted[:, None]
    for _ in range(_PASSES):
        before = best
        for place in range(len(offsets)):
            offsets[place], best = _best_offset(logs + offsets, weighted, counted, place, offsets[place], metric)
        if best <= before + _BETTER:
            break
    offsets -= offsets.mean()
    found: Floats = np.clip(offsets, -_FURTHEST, _FURTHEST)
    return found


def _best_offset(
    scores: Floats, truth: Floats, counted: Floats, place: int, now: float, metric: Metric
) -> tuple[float, float]:
    """The offset of one class with the highest metric, all others as they are, and that metric; ties go to `now`.

    As it rises, the posts join the class one by one, in the order of how far it is behind their best other class.
    """
    others = scores.copy()
    others[:, place] = -np.inf
    rival = np.argmax(others, axis=1)
    behind = others[np.arange(len(others)), rival] - scores[:, place]
    order = np.argsort(behind, kind="stable")
    leaving = np.zeros_like(scores)
    leaving[np.arange(len(order)), rival[order]] = 1
    given = np.cumsum(np.vstack([np.zeros(scores.shape[1]), -leaving * counted[order, None]]), axis=0)
    right = np.cumsum(np.vstack([np.zeros(scores.shape[1]), -leaving * truth[order]]), axis=0)
    given += np.bincount(rival, counted, scores.shape[1])
    right += np.bincount(rival, truth[np.arange(len(rival)), rival], scores.shape[1])
    given[:, place] = np.concatenate([[0], np.cumsum(counted[order])])
    right[:, place] = np.concatenate([[0], np.cumsum(truth[order, place])])
    size, whole = truth.sum(axis=0), counted.sum()
    values = metric.of_counts(right, given - right, size - right, whole - given - size + right)
    steps = np.concatenate([[behind[order[0]] - 1], behind[order], [behind[order[-1]] + 1]])
    cuts = np.flatnonzero(steps[1:] > steps[:-1])  # posts that are equally far behind join together
    # an offset between two that change nothing stays as it is
    stays = (steps[cuts] < 0) & (steps[cuts + 1] > 0)
    middles = np.where(stays, 0.0, (steps[cuts] + steps[cuts + 1]) / 2)
    reachable = values[cuts]
    best = np.flatnonzero(reachable >= reachable.max() - _BETTER)
    nearest = best[np.argmin(np.abs(middles[best]))]
    return float(now + middles[nearest]), float(reachable[nearest])
