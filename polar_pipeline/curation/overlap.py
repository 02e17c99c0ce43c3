"""Copies with a few other words: they share nearly all words with an earlier text, though their letters may differ more.

One changed word in ten changes a good third of the character sequences around it, so a cosine of 0.9 does not see it. Texts of few
words, and those of scripts without spaces, are left to the cosine.
"""

import numpy as np
import regex

from polar_pipeline.curation.dedup import Duplicates

_WORD = regex.compile(r"[\p{L}\p{M}\p{N}']+")
_FEWEST = 6  # words of a text that is compared
_LEAST = 0.7  # below it texts of one topic and style meet
_PER_COSINE = 3.0  # how much faster the share of equal words falls than the cosine that the settings name


def share_of_words(near_duplicate: float) -> float:
    """The share of equal words that makes a copy, where `near_duplicate` is the cosine that does: 0.7 for 0.9, never less."""
    return max(_LEAST, 1 - _PER_COSINE * (1 - near_duplicate))


def word_copies(texts: list[str], share: float, protected: int) -> Duplicates:
    """Which texts share this much of their different words with an earlier one; the first `protected` always stay."""
    from sklearn.feature_extraction.text import CountVectorizer

    like, similarity = np.full(len(texts), -1, dtype=np.int64), np.zeros(len(texts), dtype=np.float32)
    if share >= 1 or not any(map(_words, texts)):  # equal texts are found by what they are, not by their words
        return Duplicates(like, similarity)
    counts = CountVectorizer(analyzer=_words, binary=True, dtype=np.float32).fit_transform(texts)
    sizes = np.asarray(counts.sum(axis=1)).ravel()
    for row in range(protected, len(texts)):
        if sizes[row] < _FEWEST or row == 0:
            continue
        common = (counts[:row] @ counts[row].T).toarray().ravel()
        shares = common / np.maximum(sizes[:row], sizes[row])
        best = int(shares.argmax())
        if shares[best] >= share:
            like[row], similarity[row] = best, shares[best]
    return Duplicates(like, similarity)


def _words(text: str) -> list[str]:
    found: list[str] = _WORD.findall(text.casefold())
    return found
