"""How many of a text's letter sequences do the real posts of a language not have? The more, the less it is in that language."""

import math
from collections import Counter

_SIZE = 4  # of the sequences, across words
_PRIOR = 10  # sequences' worth of doubt: a short text proves little
_ENOUGH = 1000  # real posts from which this evidence counts in full: few posts do not show what a language has


class Letters:
    """The sequences of the real posts, and the share of them that a further real post would not share with the others."""

    def __init__(self, real: list[str]) -> None:
        found = [sequences(text) for text in real]
        self._posts = Counter(part for parts in found for part in parts)
        self._weight = min(1.0, len(real) / _ENOUGH)
        # a sequence of one post alone is what this post shares with no other
        self._usual = sum(count == 1 for count in self._posts.values()) / max(self._posts.total(), 1)

    def evidence(self, text: str, *, counted: bool = False) -> float:
        """Above 0 for a text with more unknown sequences than real posts have. `counted`: it is one of the real posts."""
        parts = sequences(text)
        unknown = sum(self._posts[part] <= counted for part in parts)
        return self._weight * (unknown - self._usual * len(parts)) / math.sqrt(len(parts) + _PRIOR)


def sequences(text: str) -> frozenset[str]:
    """The different sequences of a text, case folded, between single spaces."""
    bare = f" {' '.join(text.casefold().split())} "
    return frozenset(bare[at : at + _SIZE] for at in range(len(bare) - _SIZE + 1))
