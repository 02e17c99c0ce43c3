"""Bootstrap intervals for macro-F1.

Resampling n posts with replacement only changes how often each of the four (label, prediction) cells is drawn, so a
resample is one multinomial draw of the cells: exact, and independent of n (Efron & Tibshirani 1993, chapter 13).
"""

from typing import NamedTuple

import numpy as np

from polar_pipeline.metrics.scores import Floats, Ints, macro_f1, macro_f1_of_counts


class Interval(NamedTuple):
    """An estimate and its percentile interval."""

    value: float
    low: float
    high: float


def confusion(labels: Ints, predictions: Ints) -> tuple[int, int, int, int]:
    """Counts of true negatives, false positives, false negatives and true positives."""
    tn, fp, fn, tp = np.bincount(2 * np.asarray(labels) + np.asarray(predictions), minlength=4).tolist()
    return tn, fp, fn, tp


def macro_f1_resamples(counts: tuple[int, int, int, int], resamples: int, seed: int) -> Floats:
    """Macro-F1 of `resamples` bootstrap resamples of the posts with this `confusion`; shape (resamples,)."""
    cells = np.array(counts)
    draws = np.random.default_rng(seed).multinomial(cells.sum(), cells / cells.sum(), size=resamples)
    tn, fp, fn, tp = draws.T.astype(float)
    return macro_f1_of_counts(tp, fp, fn, tn)


def macro_f1_interval(labels: Ints, predictions: Ints, resamples: int, seed: int) -> Interval:
    """Macro-F1 with its percentile bootstrap interval over posts. Same seed, same interval."""
    draws = macro_f1_resamples(confusion(labels, predictions), resamples, seed)
    return _percentile_interval(macro_f1(labels, predictions), draws)


def paired_resamples(labels: Ints, first: Ints, second: Ints, resamples: int, seed: int) -> Floats:
    """Macro-F1 of `first` less that of `second` on the same resampled posts; all arrays 0/1 (n,), result (resamples,).

    Only the counts of the eight (label, first, second) cells matter, so one multinomial draw is one resample.
    """
    cells = np.bincount(4 * np.asarray(labels) + 2 * np.asarray(first) + np.asarray(second), minlength=8)
    draws = np.random.default_rng(seed).multinomial(cells.sum(), cells / cells.sum(), size=resamples).astype(float)
    table = draws.reshape(-1, 2, 2, 2)  # resample, label, first, second
    values = [
        macro_f1_of_counts(side[:, 1, 1], side[:, 0, 1], side[:, 1, 0], side[:, 0, 0])
        for side in (table.sum(axis=3), table.sum(axis=2))
    ]
    difference: Floats = values[0] - values[1]
    return difference


def paired_interval(
    labels: Ints, first: Ints, second: Ints, resamples: int, seed: int, level: float = 0.95
) -> Interval:
    """Difference in macro-F1 of two sets of decisions on the same posts, with its paired percentile interval."""
    value = macro_f1(labels, first) - macro_f1(labels, second)
    return _percentile_interval(value, paired_resamples(labels, first, second, resamples, seed), level)


def mean_interval(values: list[float], draws: list[Floats]) -> Interval:
    """The mean over languages with its interval: languages are independent, so resamples are averaged draw by draw."""
    return _percentile_interval(float(np.mean(values)), np.mean(np.stack(draws), axis=0))


def _percentile_interval(value: float, draws: Floats, level: float = 0.95) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
