"""Copies with a few other words: they share nearly all words with an earlier text, though their letters may differ more.

One changed word in ten changes a good third of the character sequences around it, so a cosine of 0.9 does not see it. In scripts
that put no spaces between words, two characters side by side count as a word, and in a second index what stands between spaces.
Texts of few words are left to the cosine.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable

import regex

from polar_pipeline.corpus.text import UNSPACED

_UNSPACED = "".join(rf"\p{{Script={name}}}" for name in UNSPACED)
_RUN = regex.compile(rf"[{_UNSPACED}]+")
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}']+")
_FEWEST = 6  # words of a text that is compared
_LEAST = 0.7  # below it texts of one topic and style meet
_PER_COSINE = 3.0  # how much faster the share of equal words falls than the cosine that the settings name


def share_of_words(near_duplicate: float) -> float:
    """The share of equal words that makes a copy, where `near_duplicate` is the cosine that does: 0.7 for 0.9, never less."""
    return max(_LEAST, 1 - _PER_COSINE * (1 - near_duplicate))


class WordIndex:
    """Finds, among texts that were added, the one that shares the most of its different words with another text, if enough.

    Words are numbered from rare to common. Two texts that share so many of their words share one of the few rarest, too, those
    that both could lack and one more; so only texts with one of these in common are compared (Chaudhuri et al. 2006).
    """

    def __init__(self, texts: list[str], share: float, split: Callable[[str], list[str]] | None = None) -> None:
        """`split` says what the words of a text are, if not `words`."""
        found = [set((split or words)(text)) for text in texts]
        often = Counter(word for text in found for word in text)
        rank = {word: number for number, word in enumerate(sorted(often, key=lambda word: (often[word], word)))}
        self._texts = [{rank[word] for word in text} for text in found]
        self._share = share
        self._with: defaultdict[int, list[int]] = defaultdict(list)

    def add(self, row: int) -> None:
        """From now on others may be found to be like this text."""
        for word in self._rarest(row):
            self._with[word].append(row)

    def near(self, row: int) -> tuple[int, float] | None:
        """The added text with the largest share of common words (of the longer one's), the earliest of equals."""
        mine = self._texts[row]
        if len(mine) < _FEWEST:
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
    """As many as there are ways to tell the texts' words; none where only equal words would do, since equal texts are found anyway."""
    if share >= 1:
        return ()
    ways = [words, runs] if any(_RUN.search(text) for text in texts) else [words]
    return tuple(WordIndex(texts, share, split) for split in ways)


def runs(text: str) -> list[str]:
    """What stands between spaces and marks, case folded."""
    found: list[str] = _WORD.findall(text.casefold())
    return found


def words(text: str) -> list[str]:
    """The words of a text, case folded; of a run of characters without spaces, each two of them side by side."""
    found: list[str] = _WORD.findall(_RUN.sub(" ", text.casefold()))
    for run in _RUN.findall(text.casefold()):
        found += [run[at : at + 2] for at in range(max(len(run) - 1, 1))]
    return found
