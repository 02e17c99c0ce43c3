"""Deduplication: greedy, keep first, exact. A row leaves when an earlier row that stays is as near as the threshold.

First equal normalised texts, then cosine similarity through faiss's exact index. Rows are compared a block at a time: with what
was kept before by one matrix product, and among themselves by another. What does not belong here: what rows are, and their order.
"""

from typing import NamedTuple

import numpy as np

from polar_pipeline.metrics.scores import Floats, Ints

_BLOCK = 512  # rows; a larger one is not faster, and takes more memory


class Duplicates(NamedTuple):
    """For each row the earlier row that it is like, -1 where it stays, and how alike they are (1 for equal texts)."""

    like: Ints
    similarity: Floats


def duplicates(keys: list[str], vectors: Floats, threshold: float, protected: int = 0) -> Duplicates:
    """Which of n rows repeat an earlier one.

    `keys` are normalised texts (an empty one is like no other), `vectors` unit vectors, float32 (n, dimensions); the first
    `protected` rows always stay. Among the rows that stay a later one has the most similar earlier one below `threshold`.
    """
    same = _same_keys(keys, protected)
    like, similarity = same.copy(), np.where(same >= 0, 1.0, 0.0).astype(np.float32)
    import faiss

    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    index = faiss.IndexFlatIP(vectors.shape[1])
    kept = np.flatnonzero(np.arange(len(keys)) < protected)
    index.add(vectors[kept])
    rows = np.arange(protected, len(keys))
    for block in np.array_split(rows, max(-(-len(rows) // _BLOCK), 1)):
        block = block[like[block] < 0]
        if not len(block):
            continue
        if len(kept):
            found, places = (each[:, 0] for each in index.search(vectors[block], 1))
            near = found >= threshold
            like[block[near]], similarity[block[near]] = kept[places[near]], found[near]
            block = block[~near]
        stay = _among(block, vectors, threshold, like, similarity)
        index.add(vectors[stay])
        kept = np.concatenate([kept, stay])
    return Duplicates(_of_kept(like), similarity)


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
    stays = np.ones(len(block), dtype=bool)
    for place in range(1, len(block)):
        earlier = np.flatnonzero(stays[:place])
        if not len(earlier):
            continue
        best = earlier[int(np.argmax(alike[place, earlier]))]
        if alike[place, best] >= threshold:
            stays[place] = False
            like[block[place]], similarity[block[place]] = block[best], alike[place, best]
    return block[stays]


def _of_kept(like: Ints) -> Ints:
    """Equal texts point at the first of them, which may itself be near another row: point at the one that stays."""
    for row in np.flatnonzero(like >= 0):
        while like[like[row]] >= 0:
            like[row] = like[like[row]]
    return like
