"""Heads over frozen embeddings: kernel ridge or logistic regression for the label and its finer labels together.

Kernel ridge regression with a Gaussian kernel has a closed form (Saunders et al. 1998): one factorisation serves all
labels, and gives leave-one-out predictions too (Allen 1974). Those choose its settings, and make log-odds of its
outputs (Platt 1999). Nothing is looked at but the rows that a head is fitted on. One thread, because the order of sums,
and so the last bit, must not depend on the number of cores.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from polar_pipeline.backbones.artifacts import Tensors
from polar_pipeline.metrics.scores import Floats, Ints, Mask, Matrix
from polar_pipeline.settings.backbones import EncoderSettings

_FEWEST = 5  # posts with and without a finer label, below which it is left out
_CLIP = 6.0  # standard deviations: a feature further out says no more
_INNER_FOLDS = 5
_BLOCK = 256  # rows
_CERTAIN = 5.0  # log-odds of the only label that there is


class Head(NamedTuple):
    """What a head is fitted on: the label that it is a score of, and those that it learns, NaN where a row has none.

    One that learns several scores whether any of them is true.
    """

    label: Ints  # 0/1 (rows,)
    learned: Floats  # 0/1 (rows, labels)
    finer: bool = False  # whether it may be left out, when none of its labels can be learned


class Labels(NamedTuple):
    """What the heads of a model are fitted on, by name, and the rows that belong together.

    Rows with one number of `copies` are of one post, or made from it: they are held out together. The settings are
    those that predict the labels of the heads that are not finer best.
    """

    heads: Mapping[str, Head]
    copies: Ints  # (rows,)

    def rows(self, which: Mask) -> "Labels":
        """Those of some rows; `which` is a mask (rows,)."""
        heads = {name: Head(one.label[which], one.learned[which], one.finer) for name, one in self.heads.items()}
        return Labels(heads, self.copies[which])

    @property
    def targets(self) -> Floats:
        """The labels (rows, heads) of the heads that are not finer."""
        return np.stack([head.label.astype(float) for head in self.heads.values() if not head.finer], axis=1)


def fit_head(features: Matrix, labels: Labels, settings: EncoderSettings) -> Tensors:
    """Fit the head of the settings to features float32 (rows, dimensions). The tensors are all that scoring needs.

    A column of `weights` is a label, of the head whose number less one is in `group`.
    """
    with threadpool_limits(limits=1):
        return _fit_head(features, labels, settings)


def _fit_head(features: Matrix, labels: Labels, settings: EncoderSettings) -> Tensors:
    mean, spread = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    inputs = _standardise(features, mean, spread)
    solver = (_KernelRidge if settings.head == "kernel" else _Logistic)(inputs, labels, settings)
    found: list[Tensors] = []
    final = np.full((len(labels.heads), 2), np.nan)  # a head without a label that can be learned stays NaN
    for place, head in enumerate(labels.heads.values()):
        known: Mask = np.asarray(~np.isnan(head.learned).any(axis=1))
        targets = head.learned[known]
        positives = targets.sum(axis=0)
        targets = targets if not head.finer else targets[:, np.minimum(positives, len(targets) - positives) >= _FEWEST]
        if not targets.shape[1]:
            continue
        weights, offsets, held_out = solver.fit(known, targets)
        lines = np.array([_line(*pair) for pair in zip(held_out.T, targets.T, strict=True)])
        final[place] = _line(log_sum_exp(held_out * lines[:, 0] + lines[:, 1]), head.label[known])
        group = np.full(len(lines), place - 1, dtype=np.int8 if len(labels.heads) < 128 else np.int16)
        found.append({"weights": weights, "offsets": offsets, "lines": lines, "group": group})
    whole = {name: np.concatenate([one[name] for one in found], axis=int(name == "weights")) for name in found[0]}
    return {"mean": mean, "spread": spread, "final": final, **solver.tensors(), **whole}


def head_logits(tensors: Tensors, features: Matrix, names: list[str]) -> dict[str, Floats]:
    """Log-odds (rows,) by each head of `names` that could be learned.

    A row has the same log-odds in any company: products always have as many rows, because they round by their number.
    """
    logits = np.zeros((len(features), tensors["weights"].shape[1]))
    block = np.zeros((_BLOCK, features.shape[1]), dtype=np.float32)
    with threadpool_limits(limits=1):
        for start in range(0, len(features), _BLOCK):
            some = features[start : start + _BLOCK]
            block[: len(some)] = some
            logits[start : start + len(some)] = _label_logits(tensors, block)[: len(some)]
    found = {}
    for place, (name, (slope, intercept)) in enumerate(zip(names, tensors["final"], strict=True)):
        if not np.isnan(slope):
            found[name] = slope * log_sum_exp(logits[:, tensors["group"] == place - 1]) + intercept
    return found


def _label_logits(tensors: Tensors, features: Matrix) -> Floats:
    """Log-odds (rows, labels) of every label."""
    inputs = _standardise(features, tensors["mean"], tensors["spread"])
    if "rows" in tensors:
        inputs = _gaussian(inputs, tensors["rows"].astype(np.float32), tensors["gamma"][0])
    outputs = inputs.astype(np.float64) @ tensors["weights"] + tensors["offsets"]
    found: Floats = outputs * tensors["lines"][:, 0] + tensors["lines"][:, 1]
    return found


def log_sum_exp(logits: Floats) -> Floats:
    """Logarithm of the summed odds (rows,) of several labels (rows, labels): a score of any of them being true."""
    top = logits.max(axis=1)
    found: Floats = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return found


class _KernelRidge:
    """Weights of the rows, for the width and the penalty that predict the label best with each row left out."""

    def __init__(self, inputs: Matrix, labels: Labels, settings: EncoderSettings) -> None:
        self._inputs, self._copies = inputs, labels.copies
        self._known: Mask | None = None
        self._inverse: Matrix
        everything, targets = np.ones(len(inputs), dtype=bool), labels.targets
        choices = [(width, penalty) for width in settings.widths for penalty in settings.penalties]
        errors = {}
        self.gamma, self.penalty = choices[0][0] / inputs.shape[1], choices[0][1]
        for width, penalty in choices if len(choices) > 1 else []:
            self.gamma, self.penalty, self._known = width / inputs.shape[1], penalty, None
            errors[width, penalty] = float(np.mean((self.fit(everything, targets)[2] - targets) ** 2))
        if errors:
            width, penalty = min(errors, key=lambda one: (errors[one], one))
            self.gamma, self.penalty, self._known = width / inputs.shape[1], penalty, None

    def fit(self, known: Mask, targets: Floats) -> tuple[Floats, Floats, Floats]:
        """Weights (rows, labels), offsets (labels,) and outputs (known rows, labels) with a row's copies left out."""
        if self._known is None or not np.array_equal(known, self._known):
            self._known, self._inverse = known, self._inverted(known)
        offsets = targets.mean(axis=0)
        weights = np.zeros((len(known), targets.shape[1]))
        weights[known] = self._inverse @ (targets - offsets).astype(np.float32)
        held_out = targets - weights[known] / np.diag(self._inverse)[:, None]
        for rows in _several(self._copies[known]):
            held_out[rows] = targets[rows] - np.linalg.solve(self._inverse[np.ix_(rows, rows)], weights[known][rows])
        return weights, offsets, held_out

    def tensors(self) -> Tensors:
        """What scoring needs of the rows."""
        return {"rows": self._inputs.astype(np.float16), "gamma": np.array([self.gamma])}

    def _inverted(self, known: Mask) -> Matrix:
        from scipy.linalg.lapack import spotrf, spotri

        inputs = self._inputs[known]
        kernel = _gaussian(inputs, inputs, self.gamma)
        kernel.flat[:: len(kernel) + 1] += np.float32(self.penalty)
        # transposed, it has LAPACK's layout and is not copied; with a penalty it is positive definite
        lower, failed = spotrf(kernel.T, lower=1, overwrite_a=1)
        assert not failed
        inverse, failed = spotri(lower, lower=1, overwrite_c=1)
        assert not failed
        for start in range(0, len(inverse), _BLOCK):  # the upper half, in pieces that need little memory
            end = start + _BLOCK
            inverse[start:end, end:] = inverse[end:, start:end].T
            corner = inverse[start:end, start:end]
            corner[:] = np.tril(corner) + np.tril(corner, -1).T
        found: Matrix = inverse
        return found


class _Logistic:
    """Weights of the dimensions, by logistic regression of the strength that predicts held-out rows best."""

    def __init__(self, inputs: Matrix, labels: Labels, settings: EncoderSettings) -> None:
        self._inputs, self._strengths = inputs, [1 / penalty for penalty in settings.penalties]
        self._folds = labels.copies % _INNER_FOLDS

    def fit(self, known: Mask, targets: Floats) -> tuple[Floats, Floats, Floats]:
        """Weights (dimensions, labels), offsets (labels,) and held-out outputs (known rows, labels)."""
        parts = [self._fit(self._inputs[known], column, self._folds[known]) for column in targets.T]
        weights, offsets, held_out = zip(*parts, strict=True)
        return np.stack(weights, axis=1), np.array(offsets), np.stack(held_out, axis=1)

    def tensors(self) -> Tensors:
        """Nothing but the weights is needed."""
        return {}

    def _fit(self, inputs: Matrix, target: Floats, folds: Ints) -> tuple[Floats, float, Floats]:
        from sklearn.linear_model import LogisticRegression

        if len(np.unique(target)) < 2:  # `_line` says which
            return np.zeros(inputs.shape[1]), 0.0, np.zeros(len(target))

        def fitted(strength: float, which: Mask) -> Any:
            return LogisticRegression(C=strength, solver="lbfgs", max_iter=300).fit(inputs[which], target[which])

        held_out = {}
        for strength in self._strengths:
            held_out[strength] = np.zeros(len(target))
            for fold in range(_INNER_FOLDS):
                if len(np.unique(target[folds != fold])) == 2 and (folds == fold).any():
                    model = fitted(strength, folds != fold)
                    held_out[strength][folds == fold] = model.decision_function(inputs[folds == fold])
        signs = np.where(target > 0, -1.0, 1.0)
        best = min(held_out, key=lambda one: (np.logaddexp(0, signs * held_out[one]).mean(), one))
        model = fitted(best, np.ones(len(target), dtype=bool))
        return model.coef_[0].astype(float), float(model.intercept_[0]), held_out[best]


def _several(copies: Ints) -> list[Ints]:
    """The row numbers of every group of copies with more than one row."""
    order = np.argsort(copies, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(copies[order])) + 1)
    return [part for part in parts if len(part) > 1]


def _line(outputs: Floats, targets: Floats | Ints) -> tuple[float, float]:
    """Slope and intercept that make log-odds of outputs (rows,), by logistic regression on held-out ones."""
    from sklearn.linear_model import LogisticRegression

    scale = max(float(outputs.std()), 1e-9)
    if len(np.unique(targets)) < 2:
        return 0.0, _CERTAIN * float(np.sign(targets[0] - 0.5))
    model = LogisticRegression(C=100.0, solver="newton-cholesky").fit(outputs[:, None] / scale, targets)
    return float(model.coef_[0, 0]) / scale, float(model.intercept_[0])


def _standardise(features: Matrix, mean: Matrix, spread: Matrix) -> Matrix:
    found: Matrix = np.clip((features - mean) / spread, -_CLIP, _CLIP).astype(np.float32)
    return found


def _gaussian(left: Matrix, right: Matrix, gamma: float) -> Matrix:
    """exp(-gamma * squared distance) (left rows, right rows), in the memory of one matrix."""
    found: Matrix = left @ right.T
    found *= -2
    found += (left * left).sum(axis=1)[:, None]
    found += (right * right).sum(axis=1)
    np.maximum(found, 0, out=found)
    found *= np.float32(-gamma)
    np.exp(found, out=found)
    return found
