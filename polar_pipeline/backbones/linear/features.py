"""Features that depend on a text alone: counts of its n-grams, and a few numbers about its surface.

A corpus is laid out once as one array of units (characters or words), each with a 64-bit identity and the number of
the group that it stands in. An n-gram is a window of n units inside one group; its key is a rolling polynomial hash
over the identities (Karp & Rabin 1987), an order of magnitude faster than n-gram by n-gram in Python. Among a few
million n-grams two share a key with a probability below 1e-6; a sorted array of keys is a vocabulary without text.
Surface features (length, casing, punctuation, digits, markup) put back what normalised n-gram vectors forget.
"""

import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Keys = NDArray[np.uint64]
RowNumbers = NDArray[np.int32]

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses nothing
_SPACE, _WORD, _SYMBOL = 0, 1, 2

# surface features: characters of one entry are counted together
_COUNTED = ("!！", "?؟？", "#", "@", '"“”«»「」', "…", ",،，、", ".।。۔", "'’", "\n", ":：", "()")
_CLASSES = 6  # characters, capitals, punctuation, symbols, digits, Latin letters


class Units(NamedTuple):
    """A corpus as a sequence of units: identity, group and row of each, all (units,)."""

    ids: Keys
    group: RowNumbers
    row: RowNumbers


class Layout(NamedTuple):
    """The code points of a corpus, one text after the other, with row and class of each, all (code points,)."""

    codes: NDArray[np.uint32]
    row: RowNumbers
    kind: NDArray[np.uint8]


class NgramKind(NamedTuple):
    """Which n-grams are counted: of `words`, of characters inside words (`char_wb`), or of all characters (`char`)."""

    name: str
    shortest: int
    longest: int
    cased: bool


def layout(texts: list[str]) -> Layout:
    """Lay texts out as one array of code points, classified by table look-up."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    row = np.repeat(np.arange(len(texts), dtype=np.int32), lengths)
    known, where = np.unique(codes, return_inverse=True)
    kinds = np.array([_kind(chr(code)) for code in known.tolist()], dtype=np.uint8)
    return Layout(codes, row, kinds[where])


def words(lay: Layout) -> Units:
    """Words (letters, marks, digits) and single symbols, in their order."""
    solid = lay.kind != _SPACE
    start = _changes(lay.row, lay.kind) | (lay.kind == _SYMBOL)
    begin = np.flatnonzero(start & solid)
    token = np.cumsum(start & solid)[solid] - 1
    place = np.flatnonzero(solid) - begin[token]
    # a positional salt makes the sum depend on the order: "ab" is not "ba"
    salted = mix(lay.codes[solid].astype(np.uint64) ^ mix(place.astype(np.uint64)))
    ids = np.add.reduceat(salted, np.flatnonzero(_changes(token))) if len(salted) else salted
    return Units(mix(ids), lay.row[begin], lay.row[begin])


def chars(lay: Layout) -> Units:
    """All characters of each text, white space squeezed to one space: scikit-learn's analyzer `char`."""
    space = lay.kind == _SPACE
    keep = ~space | _changes(lay.row, space)
    codes = np.where(space, np.uint32(32), lay.codes)[keep]
    return Units(mix(codes.astype(np.uint64)), lay.row[keep], lay.row[keep])


def padded_chars(lay: Layout) -> Units:
    """The characters of each word, with a space on either side: scikit-learn's analyzer `char_wb`."""
    solid = lay.kind != _SPACE
    begin = solid & _changes(lay.row, solid)
    token = (np.cumsum(begin)[solid] - 1).astype(np.int32)
    count = int(begin.sum())
    padded = np.full(len(token) + 2 * count, 32, dtype=np.uint64)
    padded[np.arange(len(token)) + 2 * token + 1] = lay.codes[solid]
    size = np.bincount(token, minlength=count) + 2
    return Units(mix(padded), np.repeat(np.arange(count, dtype=np.int32), size), np.repeat(lay.row[begin], size))


_UNITS = {"words": words, "char_wb": padded_chars, "char": chars}


def ngrams(texts: list[str], kind: NgramKind) -> tuple[Keys, RowNumbers]:
    """Key and row of every n-gram of `kind.shortest` to `kind.longest` units, both (n-grams,)."""
    units = _UNITS[kind.name](layout(texts if kind.cased else [text.lower() for text in texts]))
    keys: list[Keys] = []
    rows: list[RowNumbers] = []
    rolling = units.ids
    for size in range(1, kind.longest + 1):
        if size > 1:
            rolling = rolling[:-1] * _BASE + units.ids[size - 1 :]
        if size < kind.shortest:
            continue
        inside = units.group[: len(rolling)] == units.group[len(units.group) - len(rolling) :]
        keys.append(mix(rolling[inside] ^ mix(np.array([size], dtype=np.uint64))))
        rows.append(units.row[: len(rolling)][inside])
    return np.concatenate(keys), np.concatenate(rows)


def count(keys: Keys, rows: RowNumbers, posts: int, at_least: int = 2) -> "tuple[csr_matrix, Keys]":
    """Counts (posts, vocabulary) in float32, and the sorted vocabulary: the keys that stand in `at_least` rows."""
    order = np.argsort(keys, kind="stable")
    ranked, ordered = keys[order], rows[order]
    start = _changes(ranked)
    first = start | _changes(ordered)  # rows are ascending within a key, so this marks each (key, row) once
    column = np.cumsum(start) - 1
    documents = np.bincount(column[first], minlength=column[-1] + 1 if len(column) else 0)
    kept = documents >= at_least
    hit = kept[column]
    return _counts(ordered[hit], (np.cumsum(kept) - 1)[column[hit]], (posts, int(kept.sum()))), ranked[start][kept]


def count_known(keys: Keys, rows: RowNumbers, posts: int, vocabulary: Keys) -> "csr_matrix":
    """Counts (posts, vocabulary) of the keys of a given sorted vocabulary; others are passed over."""
    if not len(vocabulary):
        return _counts(rows[:0], np.zeros(0, dtype=np.int64), (posts, 0))
    column = np.minimum(np.searchsorted(vocabulary, keys), len(vocabulary) - 1)
    hit = vocabulary[column] == keys
    return _counts(rows[hit], column[hit], (posts, len(vocabulary)))


def surface_features(texts: list[str]) -> NDArray[np.float32]:
    """Raw surface features (texts, columns) in float32."""
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


def mix(values: Keys) -> Keys:
    """Scatter 64-bit numbers: the finaliser of SplitMix64 (Steele et al. 2014), a bijection."""
    values = values + _BASE
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _kind(char: str) -> int:
    if char.isspace():
        return _SPACE
    # unlike \w, marks stay inside words: \w cuts Indic words at each vowel sign
    letter = unicodedata.category(char)[0] in "LNM" or char in "_\u200c\u200d"
    return _WORD if letter else _SYMBOL


def _indicators(char: str) -> list[bool]:
    category = unicodedata.category(char)
    kinds = [category[0] == kind for kind in "PSN"]
    return [True, category == "Lu", *kinds, "a" <= char.lower() <= "z", *(char in group for group in _COUNTED)]


def _changes(*arrays: NDArray[Any]) -> NDArray[np.bool_]:
    """Where any of the arrays differs from its predecessor; the first place counts as a change."""
    changed = np.ones(len(arrays[0]), dtype=bool)
    for place, values in enumerate(arrays):
        different = values[1:] != values[:-1]
        changed[1:] = different if place == 0 else changed[1:] | different
    return changed


def _counts(rows: RowNumbers, columns: NDArray[np.int64], shape: tuple[int, int]) -> "csr_matrix":
    from scipy.sparse import coo_matrix

    ones = np.ones(len(rows), dtype=np.float32)
    # going through CSR sums repeated places and sorts columns: one canonical form, so sums always run in the same order
    counts: csr_matrix = coo_matrix((ones, (rows, columns.astype(np.int32))), shape).tocsr()
    counts.sort_indices()
    return counts
