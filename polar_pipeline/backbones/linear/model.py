"""One linear model: n-gram counts of one set of rows in, logits of any rows out.

Each n-gram's weight is its inverse document frequency times the square root of its absolute log-count ratio between
the classes (Wang & Manning 2012, eq. 2, softened). Rows have unit length per kind of n-gram; surface features and
their products, which let a linear model bend, stand beside them. All that is learned comes from the rows given.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polar_pipeline.metrics.scores import Floats, Ints, Matrix

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Vector = NDArray[np.float32]

_AT_LEAST = 2  # an n-gram of one training post can only be learned by heart
_SMOOTHING = 1.0
_MOST_ITERATIONS = 300
_FLAT = 1e-6  # a surface column that varies less than this says nothing
_CERTAIN = 5.0  # log-odds of the only label that there is
_CLIP = 3.0  # standard deviations: one odd post must not own a direction


class Features(NamedTuple):
    """Posts as features that depend on no other post: counts per kind of n-gram, and raw surface columns."""

    counts: "tuple[csr_matrix, ...]"
    surface: Matrix

    def rows(self, which: NDArray[Any]) -> "Features":
        """The features of some of the posts."""
        return Features(tuple(counts[which] for counts in self.counts), self.surface[which])


class Scaling(NamedTuple):
    """What standardising learned from training rows: mean and spread of the columns and of their products."""

    mean: Matrix
    spread: Matrix
    product_mean: Matrix
    product_spread: Matrix


class LinearModel(NamedTuple):
    """What was learned: a scale per n-gram (0 where it was too rare), the surface scaling, weights and intercept."""

    scales: tuple[Vector, ...]
    scaling: Scaling
    weights: Vector
    intercept: float


def fit(
    features: Features, labels: Ints, shares: tuple[float, ...], surface_share: float, regularisation: float
) -> LinearModel:
    """Fit on these rows. `shares` weigh the kinds of n-grams, `regularisation` is the inverse of scikit-learn's C."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    scales = tuple(ngram_scale(counts, labels) for counts in features.counts)
    scaling = fit_scaling(features.surface)
    design = _design(features, scales, scaling, shares, surface_share)
    if len(np.unique(labels)) < 2:
        nothing = np.zeros(design.shape[1], dtype=np.float32)
        return LinearModel(scales, scaling, nothing, _CERTAIN * float(np.sign(labels[0] - 0.5)))
    solver = LogisticRegression(C=1 / regularisation, solver="lbfgs", max_iter=_MOST_ITERATIONS, tol=1e-4)
    with threadpool_limits(limits=1):  # the order of sums, and so the last bit, must not depend on the number of cores
        solver.fit(design, labels)
    return LinearModel(scales, scaling, solver.coef_[0].astype(np.float32), float(solver.intercept_[0]))


def logits(model: LinearModel, features: Features, shares: tuple[float, ...], surface_share: float) -> Floats:
    """Log-odds (posts,) of the positive class, in float64."""
    design = _design(features, model.scales, model.scaling, shares, surface_share)
    scores: Floats = design.astype(np.float64) @ model.weights.astype(np.float64) + model.intercept
    return scores


def _design(
    features: Features, scales: tuple[Vector, ...], scaling: Scaling, shares: tuple[float, ...], surface_share: float
) -> "csr_matrix":
    from scipy.sparse import csr_matrix, hstack

    total = sum(shares)
    blocks = [
        weigh(counts, scale, np.sqrt(share / total))
        for counts, scale, share in zip(features.counts, scales, shares, strict=True)
    ]
    dense = expand(features.surface, scaling) * np.float32(np.sqrt(surface_share))
    design: csr_matrix = hstack([*blocks, csr_matrix(dense)], format="csr", dtype=np.float32)
    return design


def ngram_scale(counts: "csr_matrix", labels: Ints) -> Vector:
    """Inverse document frequency times the square root of |log-count ratio|; 0 for n-grams that are too rare."""
    size = counts.shape[1]
    documents = np.bincount(counts.indices, minlength=size).astype(float)
    positives = np.repeat(labels == 1, np.diff(counts.indptr))
    positive = np.bincount(counts.indices[positives], minlength=size).astype(float)
    known = documents >= _AT_LEAST
    p, q = positive + _SMOOTHING, documents - positive + _SMOOTHING
    ratio = np.log(p / max(p[known].sum(), 1.0)) - np.log(q / max(q[known].sum(), 1.0))
    idf = np.log((1 + counts.shape[0]) / (1 + documents)) + 1
    return np.where(known, np.sqrt(np.abs(ratio)) * idf, 0.0).astype(np.float32)


def weigh(counts: "csr_matrix", scale: Vector, length: float) -> "csr_matrix":
    """Sublinear counts times scale, each row at `length` (or 0 when it holds no known n-gram)."""
    from scipy.sparse import csr_matrix

    values = (1 + np.log(counts.data)) * scale[counts.indices]
    filled = np.flatnonzero(np.diff(counts.indptr))
    norms = np.ones(counts.shape[0], dtype=np.float32)
    if len(filled):
        norms[filled] = np.sqrt(np.add.reduceat(values * values, counts.indptr[filled]))
    norms[norms == 0] = 1
    values *= np.repeat(np.float32(length) / norms, np.diff(counts.indptr))
    return csr_matrix((values, counts.indices, counts.indptr), counts.shape)


def fit_scaling(raw: Matrix) -> Scaling:
    """Learn the standardisation from the training rows of `raw`."""
    mean, spread = raw.mean(axis=0), raw.std(axis=0)
    products = _products(_standardise(raw, mean, spread))
    return Scaling(mean, spread, products.mean(axis=0), np.maximum(products.std(axis=0), 1e-3).astype(np.float32))


def expand(raw: Matrix, scaling: Scaling) -> Matrix:
    """Standardised columns and their products, each half with a mean squared length of about 1 a row."""
    columns = _standardise(raw, scaling.mean, scaling.spread)
    products = (_products(columns) - scaling.product_mean) / scaling.product_spread
    useful = max(int((scaling.spread > _FLAT).sum()), 1)
    halves = [columns / np.sqrt(useful), products / np.sqrt(useful * (useful + 1) / 2)]
    return np.hstack(halves).astype(np.float32)


def _standardise(raw: Matrix, mean: Matrix, spread: Matrix) -> Matrix:
    scaled = np.where(spread > _FLAT, (raw - mean) / np.maximum(spread, _FLAT), 0.0)
    return np.clip(scaled, -_CLIP, _CLIP).astype(np.float32)


def _products(columns: Matrix) -> Matrix:
    left, right = np.triu_indices(columns.shape[1])
    products: Matrix = columns[:, left] * columns[:, right]
    return products
