"""Deduplication: one exact greedy pass, keep first. A row leaves if an earlier row that stays is near it.

The measures are the same normalised text, the cosine of vectors (faiss's exact index), and the share of equal words,
which sees copies with a few other words: one changed word in ten changes a third of the character sequences around it.
The halves of a pair are asked to be alike, so they are not compared by the last two, and they leave together.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray

from polar_pipeline.curation.label_leakage import UNSPACED_LETTERS
from polar_pipeline.metrics.scores import Floats, Ints

TEXT, COSINE, WORDS = "text", "cosine", "words"
_BLOCK = 1536  # rows compared at a time: on fewer, faiss's matrix products are slow; of more, many are in vain
_SAMPLE = 256  # rows whose sketches are tried
_PASSING = 0.002  # share of pairs that sketches may let pass though most of them are not near
_UNSPACED_RUN = regex.compile(rf"[{UNSPACED_LETTERS}]+")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}']+")
_FEWEST_WORDS = 6  # of a text that is compared by words
_LEAST_SHARE = 0.7  # of equal words; below it texts of one topic and style meet
_PER_COSINE = 3.0  # how much faster the share of equal words falls than the cosine

_Near = dict[int, list[tuple[int, float]]]


class Duplicates(NamedTuple):
    """Per row: whether it stays, the staying row that it is like (-1 for none), how alike, and by which measure.

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
    words: tuple["WordIndex", ...] = (),
    pairs: Ints | None = None,
) -> Duplicates:
    """Which of n rows repeat an earlier one.

    `keys` are normalised texts (an empty one is like no other), `vectors` unit vectors, float32 (n, dimensions); the
    first `protected` rows always stay. `pairs` numbers the pairs (n,), whose rows are neighbours, -1 for none. A row
    that leaves points at the first with its text, else at that of the highest cosine, else at that with most words in
    common.
    """
    rows = len(keys)
    found = Duplicates(np.ones(rows, dtype=bool), np.full(rows, -1), np.zeros(rows, dtype=np.float32), [""] * rows)
    index, first = _Index(np.ascontiguousarray(vectors, dtype=np.float32), threshold), dict[str, int]()

    def stays(row: int) -> None:
        first.setdefault(keys[row], row)
        for word_index in words:
            word_index.add(row)

    def nearest(row: int, unit: tuple[int, ...], near: _Near) -> tuple[int, float, str] | None:
        if keys[row] and keys[row] in first:
            return first[keys[row]], 1.0, TEXT
        for other, cosine in near.get(row, ()):
            if found.keep[other] and other not in unit:
                return other, cosine, COSINE
        shared = [hit for word_index in words if (hit := word_index.near(row))]
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


def nearest(vectors: Floats, others: Floats, least: float) -> Ints:
    """The row of `others` that each vector is nearest to, int64 (n,); -1 where no cosine is `least` or more.

    Both are unit vectors, float32 (n, dimensions).
    """
    import faiss

    index = faiss.IndexFlatIP(others.shape[1])
    index.add(np.ascontiguousarray(others, dtype=np.float32))
    with _one_thread():
        cosines, places = index.search(np.ascontiguousarray(vectors, dtype=np.float32), 1)
    found: Ints = np.where(cosines[:, 0] >= least, places[:, 0], -1).astype(np.int64)
    return found


class _Index:
    """faiss's exact index over the vectors of the rows that stay.

    Sketches, a quarter as long, are compared first, and the vectors themselves only where those are near.
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
        """For each row of a block: near rows that stay, or stand before it in the block, the most similar first."""
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
    """Faiss's range search: limits, similarities and places."""
    with _one_thread():
        found: tuple[Any, Any, Any] = index.range_search(vectors, above)
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """Faiss in one thread, because languages run side by side."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _sketches(vectors: Floats, above: float) -> Floats:
    """The first quarter of each vector and the length of the rest: their product is never less than the cosine.

    The vectors themselves if, in a sample, sketches would let more than a few pass.
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


def share_of_words(near_duplicate: float) -> float:
    """The share of equal words of a copy, for the cosine of one: 0.7 for 0.9, never less."""
    return max(_LEAST_SHARE, 1 - _PER_COSINE * (1 - near_duplicate))


class WordIndex:
    """Finds, among the texts added so far, the one with most different words in common with another text, if enough.

    Words are numbered from rare to common. Two texts with enough common words also share one of their few rarest: as
    many as both may lack, and one more. Only texts that share one of these are compared (Chaudhuri et al. 2006).
    """

    def __init__(self, texts: list[str], share: float, split: Callable[[str], list[str]] | None = None) -> None:
        """`split` gives the words of a text; the default is `words`."""
        found = [set((split or words)(text)) for text in texts]
        often = Counter(word for text in found for word in text)
        rank = {word: number for number, word in enumerate(sorted(often, key=lambda word: (often[word], word)))}
        self._texts = [{rank[word] for word in text} for text in found]
        self._share = share
        self._with: defaultdict[int, list[int]] = defaultdict(list)

    def add(self, row: int) -> None:
        """Add a text, by its row."""
        for word in self._rarest(row):
            self._with[word].append(row)

    def near(self, row: int) -> tuple[int, float] | None:
        """The added text with the largest share of the longer text's words in common, the earliest of equals."""
        mine = self._texts[row]
        if len(mine) < _FEWEST_WORDS:
            return None
        best = None
        for other in sorted({other for word in self._rarest(row) for other in self._with.get(word, ())}):
            theirs = self._texts[other]
            share = len(mine & theirs) / max(len(mine), len(theirs))
            if share >= self._share and (best is None or share > best[1]):
                best = other, share
        return best

    def _rarest(self, row: int) -> list[int]:
        mine = self._texts[row]
        needed = math.ceil(self._share * len(mine) - 1e-9)
        return sorted(mine)[: len(mine) - needed + 1]


def word_indices(texts: list[str], share: float) -> tuple[WordIndex, ...]:
    """An index for each way to split the texts into words; none if only equal texts would do."""
    if share >= 1:
        return ()
    splits = [words, runs] if any(_UNSPACED_RUN.search(text) for text in texts) else [words]
    return tuple(WordIndex(texts, share, split) for split in splits)


def runs(text: str) -> list[str]:
    """What stands between spaces and marks, case folded."""
    found: list[str] = _WORD.findall(text.casefold())
    return found


def words(text: str) -> list[str]:
    """The words of a text, case folded; in a script without spaces, each two neighbouring characters."""
    found: list[str] = _WORD.findall(_UNSPACED_RUN.sub(" ", text.casefold()))
    for run in _UNSPACED_RUN.findall(text.casefold()):
        found += [run[at : at + 2] for at in range(max(len(run) - 1, 1))]
    return found
