"""Deduplication: greedy, keep first, exact. A row leaves when an earlier row that stays is as near as the threshold.

First equal normalised texts, then cosine similarity: a block of rows against what was kept before, and among itself, by matrix
products. (faiss's exact index does the same products; keeping the best alone made it twice as slow here.) Memory is that of the
vectors, twice. What does not belong here: what rows are, and their order.
"""

from typing import NamedTuple

import numpy as np

from polar_pipeline.metrics.scores import Floats, Ints

_BLOCK = 384  # rows compared at a time
_CHUNK = 8192  # kept rows that they are compared with at a time: the product stays in the cache


class Duplicates(NamedTuple):
    """For each row the earlier row that it is like, -1 where it stays, and how alike they are (1 for equal texts)."""

    like: Ints
    similarity: Floats


def duplicates(keys: list[str], vectors: Floats, threshold: float, protected: int = 0) -> Duplicates:
    """Which of n rows repeat an earlier one.

    `keys` are normalised texts (an empty one is like no other), `vectors` unit vectors, float32 (n, dimensions); the first
    `protected` rows always stay. A row that leaves points at the most similar of the rows that stay before it.
    """
    like = _same_keys(keys, protected)
    similarity = np.where(like >= 0, 1.0, 0.0).astype(np.float32)
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    kept = _Kept(vectors, protected)
    for start in range(protected, len(keys), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(keys)))
        block = block[like[block] < 0]
        best, found = kept.nearest(vectors[block])
        near = found >= threshold
        like[block[near]], similarity[block[near]] = best[near], found[near]
        kept.add(_among(block[~near], vectors, threshold, like, similarity))
    return Duplicates(_of_kept(like), similarity)


class _Kept:
    """The rows that stay, their vectors in one piece."""

    def __init__(self, vectors: Floats, protected: int) -> None:
        self._all, self._vectors, self._rows = vectors, np.empty_like(vectors), np.empty(len(vectors), dtype=np.int64)
        self._count = 0
        self.add(np.arange(protected))

    def add(self, rows: Ints) -> None:
        place = slice(self._count, self._count + len(rows))
        self._vectors[place], self._rows[place] = self._all[rows], rows
        self._count += len(rows)

    def nearest(self, block: Floats) -> tuple[Ints, Floats]:
        """For each vector the most similar row that stays, and the similarity; -1 and -inf where none stays."""
        best, found = np.full(len(block), -1, dtype=np.int64), np.full(len(block), -np.inf, dtype=np.float32)
        for start in range(0, self._count, _CHUNK):
            chunk = slice(start, min(start + _CHUNK, self._count))
            alike = block @ self._vectors[chunk].T
            places = alike.argmax(axis=1)
            values = alike[np.arange(len(block)), places]
            better = values > found
            best[better], found[better] = self._rows[chunk][places[better]], values[better]
        return best, found


def _same_keys(keys: list[str], protected: int) -> Ints:
    first: dict[str, int] = {}
    like = np.full(len(keys), -1, dtype=np.int64)
    for row, key in enumerate(keys):
        if not key:
            continue
        earlier = first.setdefault(key, row)
        if earlier != row and row >= protected:
            like[row] = earlier
    return like


def _among(block: Ints, vectors: Floats, threshold: float, like: Ints, similarity: Floats) -> Ints:
    """Greedy inside a block; fills `like` and `similarity`, returns the rows that stay."""
    alike = vectors[block] @ vectors[block].T
    near = (alike >= threshold) & np.tri(len(block), k=-1, dtype=bool)
    stays = np.ones(len(block), dtype=bool)
    for place in np.flatnonzero(near.any(axis=1)):  # the others have nothing near before them
        earlier = np.flatnonzero(near[place] & stays)
        if len(earlier):
            best = earlier[int(np.argmax(alike[place, earlier]))]
            stays[place] = False
            like[block[place]], similarity[block[place]] = block[best], alike[place, best]
    return block[stays]


def _of_kept(like: Ints) -> Ints:
    """Equal texts point at the first of them, which may itself be near another row: point at the one that stays."""
    for row in np.flatnonzero(like >= 0):
        while like[like[row]] >= 0:
            like[row] = like[like[row]]
    return like
