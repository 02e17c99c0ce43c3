"""Bootstrap intervals for a metric.

Resampling n posts with replacement only changes how often each cell is drawn, that is each combination of labels and
predictions, so a resample is one multinomial draw of the cells: exact, and independent of n (Efron & Tibshirani 1993,
chapter 13). Labels and predictions are 0/1 of shape (posts, labels), or (posts,) for one label.
"""

from typing import NamedTuple

import numpy as np

from polar_pipeline.metrics.metric import MACRO_F1, Metric
from polar_pipeline.metrics.scores import Floats, Ints


class Interval(NamedTuple):
    """An estimate and its percentile interval."""

    value: float
    low: float
    high: float


def confusion(labels: Ints, predictions: Ints) -> tuple[int, int, int, int]:
    """Counts of true negatives, false positives, false negatives and true positives of one label."""
    tn, fp, fn, tp = np.bincount(2 * np.asarray(labels) + np.asarray(predictions), minlength=4).tolist()
    return tn, fp, fn, tp


def metric_resamples(labels: Ints, predictions: Ints, resamples: int, seed: int, metric: Metric = MACRO_F1) -> Floats:
    """The metric of `resamples` bootstrap resamples of the posts; shape (resamples,)."""
    (truth, given), draws = _cells([labels, predictions], resamples, seed)
    return _metric_of_draws(truth, given, draws, metric)


def metric_interval(labels: Ints, predictions: Ints, resamples: int, seed: int, metric: Metric = MACRO_F1) -> Interval:
    """The metric with its percentile bootstrap interval over posts. Same seed, same interval."""
    draws = metric_resamples(labels, predictions, resamples, seed, metric)
    return _percentile_interval(metric.value(labels, predictions), draws)


def paired_resamples(
    labels: Ints, first: Ints, second: Ints, resamples: int, seed: int, metric: Metric = MACRO_F1
) -> Floats:
    """The metric of `first` less that of `second` on the same resampled posts; shape (resamples,)."""
    (truth, *given), draws = _cells([labels, first, second], resamples, seed)
    values = [_metric_of_draws(truth, side, draws, metric) for side in given]
    difference: Floats = values[0] - values[1]
    return difference


def paired_interval(
    labels: Ints,
    first: Ints,
    second: Ints,
    resamples: int,
    seed: int,
    level: float = 0.95,
    metric: Metric = MACRO_F1,
) -> Interval:
    """Difference in the metric of two sets of decisions on the same posts, with its paired percentile interval."""
    value = metric.value(labels, first) - metric.value(labels, second)
    return _percentile_interval(value, paired_resamples(labels, first, second, resamples, seed, metric), level)


def mean_interval(values: list[float], draws: list[Floats]) -> Interval:
    """The mean over languages with its interval: languages are independent, so resamples are averaged draw by draw."""
    return _percentile_interval(float(np.mean(values)), np.mean(np.stack(draws), axis=0))


def _cells(tables: list[Ints], resamples: int, seed: int) -> tuple[list[Floats], Floats]:
    """The rows of each table at the different cells, (cells, labels), and how often each resample has each cell."""
    bits = np.stack([np.asarray(table).reshape(len(table), -1) for table in tables], axis=1).astype(np.uint8)
    packed, counts = np.unique(np.packbits(bits.reshape(len(bits), -1), axis=1), axis=0, return_counts=True)
    cells = np.unpackbits(packed, axis=1, count=bits[0].size).reshape(len(packed), *bits.shape[1:]).astype(float)
    draws = np.random.default_rng(seed).multinomial(len(bits), counts / len(bits), size=resamples)
    return list(cells.transpose(1, 0, 2)), draws.astype(float)


def _metric_of_draws(truth: Floats, given: Floats, draws: Floats, metric: Metric) -> Floats:
    cells = (truth * given, (1 - truth) * given, truth * (1 - given), (1 - truth) * (1 - given))
    return metric.of_counts(*(draws @ cell for cell in cells))


def _percentile_interval(value: float, draws: Floats, level: float = 0.95) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
