"""Deduplication: one greedy pass, keep first, exact. A row leaves when an earlier row that stays is near it by any measure.

Three measures: the same normalised text; cosine of vectors, by faiss's exact index of the rows that stay, a block of rows at a
time; share of words, by an index of rare words (`overlap.py`). The two halves of a pair are not compared by the last two, and
leave together. What does not belong here: what rows are, and their order.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from polar_pipeline.curation.overlap import WordIndex
from polar_pipeline.metrics.scores import Floats, Ints

TEXT, COSINE, WORDS = "text", "cosine", "words"
_BLOCK = 1536  # rows compared at a time: on fewer, faiss's matrix products are slow; of more, many are in vain
_SAMPLE = 256  # rows whose sketches are tried
_PASSING = 0.002  # share of pairs that sketches may let pass though most of them are not near

_Near = dict[int, list[tuple[int, float]]]


class Duplicates(NamedTuple):
    """What became of each row: whether it stays, the row that stays that it is like (-1 for none), how alike, and by which measure.

    A row that leaves and is like none is the other half of a pair.
    """

    keep: NDArray[np.bool_]
    like: Ints
    similarity: Floats
    measure: list[str]


def duplicates(
    keys: list[str],
    vectors: Floats,
    threshold: float,
    protected: int = 0,
    words: tuple[WordIndex, ...] = (),
    pairs: Ints | None = None,
) -> Duplicates:
    """Which of n rows repeat an earlier one.

    `keys` are normalised texts (an empty one is like no other), `vectors` unit vectors, float32 (n, dimensions); the first
    `protected` rows always stay. `pairs` numbers the pairs, whose rows stand side by side, -1 for none. A row that leaves points at
    the first with its text, else at the one of the highest cosine, else at the one that shares most words.
    """
    rows = len(keys)
    found = Duplicates(np.ones(rows, dtype=bool), np.full(rows, -1), np.zeros(rows, dtype=np.float32), [""] * rows)
    index, first = _Index(np.ascontiguousarray(vectors, dtype=np.float32), threshold), dict[str, int]()

    def stays(row: int) -> None:
        first.setdefault(keys[row], row)
        for way in words:
            way.add(row)

    def nearest(row: int, unit: tuple[int, ...], near: _Near) -> tuple[int, float, str] | None:
        if keys[row] and keys[row] in first:
            return first[keys[row]], 1.0, TEXT
        for other, cosine in near.get(row, ()):
            if found.keep[other] and other not in unit:
                return other, cosine, COSINE
        shared = [hit for way in words if (hit := way.near(row))]
        return (*max(shared, key=lambda hit: hit[1]), WORDS) if shared else None

    for row in range(protected):
        stays(row)
    index.add(np.arange(protected))
    for block in _blocks(protected, rows, pairs):
        start, stop = block[0][0], block[-1][-1] + 1
        near = index.near(start, stop)
        for unit in block:
            hits = {row: hit for row in unit if (hit := nearest(row, unit, near))}
            for row, hit in hits.items():
                found.like[row], found.similarity[row], found.measure[row] = hit
            for row in unit:
                if hits:
                    found.keep[row] = False
                else:
                    stays(row)
        index.add(start + np.flatnonzero(found.keep[start:stop]))
    return found


class _Index:
    """faiss's exact index over the vectors of the rows that stay, and whatever is near enough in it.

    What is compared first are sketches, a quarter as long; only where those allow it, the vectors themselves.
    """

    def __init__(self, vectors: Floats, threshold: float) -> None:
        self._vectors, self._threshold = vectors, np.float32(threshold)
        # faiss takes what is above a limit; a row as near as the threshold is to be found, whatever rounding does
        self._above = threshold - 1e-4
        self._sketches, self._rows = _sketches(vectors, self._above), np.zeros(0, dtype=np.int64)
        self._index = self._empty()

    def add(self, rows: Ints) -> None:
        if len(rows):
            self._index.add(self._sketches[rows])
            self._rows = np.concatenate([self._rows, rows])

    def near(self, start: int, stop: int) -> _Near:
        """For each row of a block that has any: rows that stay, or stand before it in the block, the most similar first."""
        block, sketches, parts = self._empty(), self._sketches[start:stop], []
        block.add(sketches)
        for index, names in ((self._index, self._rows), (block, np.arange(start, stop))):
            ends, _, places = _searched(index, sketches, self._above)
            found, others = np.repeat(np.arange(start, stop), np.diff(ends.astype(np.int64))), names[places]
            before = others < found  # in the block each row finds itself, and later ones
            parts.append((found[before], others[before]))
        found, others = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        cosines = np.einsum("ij,ij->i", self._vectors[found], self._vectors[others])
        order = np.lexsort((others, -cosines))
        near: _Near = {}
        for place in order[cosines[order] >= self._threshold].tolist():
            near.setdefault(int(found[place]), []).append((int(others[place]), float(cosines[place])))
        return near

    def _empty(self) -> Any:
        import faiss

        return faiss.IndexFlatIP(self._sketches.shape[1])


def _searched(index: Any, vectors: Floats, above: float) -> tuple[Any, Any, Any]:
    """In one thread: languages run side by side, and faiss's threads wait for each other at full speed."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        found: tuple[Any, Any, Any] = index.range_search(vectors, above)
    finally:
        faiss.omp_set_num_threads(threads)
    return found


def _sketches(vectors: Floats, above: float) -> Floats:
    """The first quarter of each vector and the length of the rest: two sketches' product is never less than the cosine.

    The vectors themselves where, in a sample, sketches would let more than a few pass.
    """
    part = vectors.shape[1] // 4
    rest = np.linalg.norm(vectors[:, part:], axis=1, keepdims=True)
    sketches: Floats = np.ascontiguousarray(np.hstack([vectors[:, :part], rest]), dtype=np.float32)
    some = sketches[:: max(len(sketches) // _SAMPLE, 1)]
    passing = (some @ some.T > above).sum() - len(some)
    return sketches if passing <= _PASSING * len(some) ** 2 else vectors


def _blocks(start: int, rows: int, pairs: Ints | None) -> Iterator[list[tuple[int, ...]]]:
    """Rows in blocks of units: a unit is a pair, or a row alone."""
    numbers = [-1] * rows if pairs is None else pairs.tolist()
    block: list[tuple[int, ...]] = []
    row, size = start, 0
    while row < rows:
        paired = row + 1 < rows and numbers[row] >= 0 and numbers[row] == numbers[row + 1]
        block.append((row, row + 1) if paired else (row,))
        row, size = row + 1 + paired, size + 1 + paired
        if size >= _BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block
