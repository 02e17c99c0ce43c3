"""What a task is judged by: a measure of one label's decisions, and how those of several labels become one figure."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from polar_pipeline.metrics.scores import Floats, Ints, macro_f1_of_counts

# of the counts tp, fp, fn and tn of a label, elementwise over arrays of one shape
Measure = Callable[[Floats, Floats, Floats, Floats], Floats]


def f1_of_counts(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:  # noqa: ARG001
    """F1 of the positive answer; 0 where no post is positive and none is called so, as in scikit-learn."""
    size = 2 * tp + fp + fn
    found: Floats = np.divide(2 * tp, size, out=np.zeros_like(size, dtype=float), where=size > 0)
    return found


def accuracy_of_counts(tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
    """Share of right answers; 0 without posts."""
    size = tp + fp + fn + tn
    found: Floats = np.divide(tp + tn, size, out=np.zeros_like(size, dtype=float), where=size > 0)
    return found


class Metric(NamedTuple):
    """A figure of decisions about one or several labels.

    Labels and predictions are 0/1 integers of shape (posts, labels), or (posts,) for one label. `exclusive` says that
    each post has exactly one of the labels, which then are classes: classes that no post has and none is given are left
    out of a mean, and accuracy counts posts. All are as scikit-learn's `f1_score(average="macro", zero_division=0)`
    and, but for the labels of a multilabel task, whose accuracies are averaged, `accuracy_score`.
    """

    name: str
    measure: Measure = macro_f1_of_counts
    exclusive: bool = False

    @property
    def of_one_label(self) -> "Metric":
        """What one of the labels is judged by."""
        return Metric(self.name, self.measure)

    def of_counts(self, tp: Floats, fp: Floats, fn: Floats, tn: Floats) -> Floats:
        """The figure (...,) of counts (..., labels)."""
        found: Floats
        if not self.exclusive:
            found = self.measure(tp, fp, fn, tn).mean(axis=-1)
        elif self.measure is accuracy_of_counts:
            found = tp.sum(axis=-1) / np.maximum(tp.sum(axis=-1) + fn.sum(axis=-1), 1)
        else:
            there = 2 * tp + fp + fn > 0
            found = (self.measure(tp, fp, fn, tn) * there).sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)
        return found

    def value(self, labels: Ints, predictions: Ints) -> float:
        """The figure of these decisions. Empty input or different shapes: ValueError."""
        truth, given = np.asarray(labels), np.asarray(predictions)
        if truth.shape != given.shape or not truth.size:
            raise ValueError(f"two arrays of one shape with posts are needed, got {truth.shape} and {given.shape}")
        truth, given = (values.reshape(len(values), -1).astype(bool) for values in (truth, given))
        cells = (truth & given, ~truth & given, truth & ~given, ~truth & ~given)
        return float(self.of_counts(*(cell.sum(axis=0).astype(float) for cell in cells)))


MACRO_F1 = Metric("macro-F1")
F1 = Metric("F1", f1_of_counts)
ACCURACY = Metric("accuracy", accuracy_of_counts)
METRICS = {metric.name: metric for metric in (MACRO_F1, F1, ACCURACY)}


def task_metric(name: str, kind: str) -> Metric:
    """The metric of this name for a task of this kind: binary, multiclass or multilabel.

    Macro-F1 is the mean of the F1 of the classes: both answers of a binary task, all classes, or the positives of each
    of several labels.
    """
    if kind == "binary":
        return METRICS[name]
    return Metric(name, accuracy_of_counts if name == ACCURACY.name else f1_of_counts, kind == "multiclass")
