"""Which real posts are rewritten: those of one request are different ones of one fold, and all are used about equally often."""

from collections import Counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polar_pipeline.errors import InputError

Labels = NDArray[np.int64]


class Parents:
    """The posts of each fold and label in a random order, dealt from its start again when they run out."""

    def __init__(self, folds: list[pd.DataFrame], generator: np.random.Generator) -> None:
        self._folds = folds
        self._decks = [
            {label: generator.permutation(np.flatnonzero(fold["label"] == label)) for label in (0, 1)} for fold in folds
        ]
        self._dealt = [Counter[int]() for _ in folds]

    def draw(self, labels: tuple[int, ...]) -> pd.DataFrame:
        """A post of each label, in their order, of the fold whose posts were used least. InputError where no fold has enough."""
        needs = Counter(labels)
        able = [
            place
            for place, decks in enumerate(self._decks)
            if all(len(decks[label]) >= need for label, need in needs.items())
        ]
        if not able:
            self._refuse(needs)
        place = min(able, key=lambda place: max(self._use(place, label) + self._share(place, label) for label in needs))
        return self._folds[place].iloc[[self._deal(place, label) for label in labels]]

    def _use(self, place: int, label: int) -> float:
        return self._dealt[place][label] / len(self._decks[place][label])

    def _share(self, place: int, label: int) -> float:
        return 1 / len(self._decks[place][label])

    def _deal(self, place: int, label: int) -> int:
        deck, at = self._decks[place][label], self._dealt[place][label]
        self._dealt[place][label] += 1
        return int(deck[at % len(deck)])

    def _refuse(self, needs: Counter[int]) -> None:
        most = {label: max(len(decks[label]) for decks in self._decks) for label in needs}
        label = next((label for label in needs if most[label] < needs[label]), min(needs))
        raise InputError(
            f"a request to rewrite wants {needs[label]} different training posts labelled {label} of one fold, and no fold has "
            f"enough: set synthesis.posts_per_request or folds.count lower, or the second of synthesis.shares to 0."
        )
