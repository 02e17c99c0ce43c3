"""Surface features: length, casing, punctuation, digits, markup.

Normalised n-gram vectors forget how long a post is and how loud; these few dense columns put that back, and their products
let a linear model bend.
"""

import unicodedata
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from polar_pipeline.backbones.linear.ngrams import layout

Matrix = NDArray[np.float32]

# characters of one entry are counted together
_COUNTED = ("!！", "?؟？", "#", "@", '"“”«»「」', "…", ",،，、", ".।。۔", "'’", "\n", ":：", "()")
_CLASSES = 6  # characters, capitals, punctuation, symbols, digits, Latin letters
_FLAT = 1e-6  # a column that varies less than this says nothing
_CLIP = 3.0  # standard deviations: one odd post must not own a direction


class Scaling(NamedTuple):
    """What standardising learned from training rows: mean and spread of the columns and of their products."""

    mean: Matrix
    spread: Matrix
    product_mean: Matrix
    product_spread: Matrix


def surface_features(texts: list[str]) -> Matrix:
    """Raw features (texts, columns); each row depends on its text alone."""
    lay = layout(texts)
    known, where = np.unique(lay.codes, return_inverse=True)
    table = np.array([_indicators(chr(code)) for code in known.tolist()], dtype=np.float64)
    table = table.reshape(len(known), _CLASSES + len(_COUNTED))
    counts = np.stack([np.bincount(lay.row, column[where], minlength=len(texts)) for column in table.T], axis=1)
    size = counts[:, :1] + 1
    tokens = [text.split() for text in texts]
    words = np.array([[len(each) + 1.0] for each in tokens])
    loud = np.array([[float(sum(len(word) > 1 and word.isupper() for word in each))] for each in tokens])
    distinct = np.array([[float(len(set(each)))] for each in tokens]) / words
    flags = np.array([["http" in text, text[:1].isupper()] for text in texts], dtype=np.float64)
    parts = [np.log(size), np.log(words), size / words, counts[:, 1:_CLASSES] / size, np.log1p(counts[:, 3:4])]
    parts += [np.log1p(counts[:, _CLASSES:]), np.log1p(loud), distinct, flags]
    return np.hstack(parts).astype(np.float32)


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


def _indicators(char: str) -> list[bool]:
    category = unicodedata.category(char)
    classes = [
        True,
        category == "Lu",
        category[0] == "P",
        category[0] == "S",
        category[0] == "N",
        "a" <= char.lower() <= "z",
    ]
    return classes + [char in group for group in _COUNTED]
