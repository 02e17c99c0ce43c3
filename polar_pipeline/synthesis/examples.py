"""Which real posts a request shows: posts to rewrite, random ones, or some around what a language lacks.

Those of one request are always of one fold.
"""

from collections import Counter
from typing import Protocol

import numpy as np
import pandas as pd

from polar_pipeline.corpus.text import ngram_vectors, normalise
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats, Ints
from polar_pipeline.settings.synthesis import SynthesisSettings


class Examples(Protocol):
    """Chooses the examples of a request."""

    def draw(self, place: int, number: int, label: int, kind: str) -> pd.DataFrame:
        """Posts of the fold at `place` for request `number`, which is for posts of `label` and, if positive, `kind`."""


def make_examples(folds: list[pd.DataFrame], settings: SynthesisSettings, seed: int) -> Examples:
    """The chooser that the settings ask for. `folds` are posts that may be shown, by fold, in order of their ids."""
    chooser = NearestExamples if settings.examples_by == "nearest" else RandomExamples
    return chooser(folds, settings.examples, seed)


class RandomExamples:
    """Any posts of the fold, others for each request."""

    def __init__(self, folds: list[pd.DataFrame], count: int, seed: int) -> None:
        self._folds, self._count, self._seed = folds, count, seed

    def draw(self, place: int, number: int, label: int, kind: str) -> pd.DataFrame:  # noqa: ARG002
        """`count` posts of the fold, or all if it has fewer."""
        fold = self._folds[place]
        order = np.random.default_rng([self._seed, number]).permutation(len(fold))
        return fold.iloc[np.sort(order[: self._count])]


class NearestExamples:
    """A post of the label and type that a request is for, and those of both labels that are most like it.

    All posts of a label and type come up in turn. Alike means by character n-grams, whatever the profile compares
    posts by: these need no weights and no endpoint, so the plan is the same on every machine, and costs nothing.
    """

    def __init__(self, folds: list[pd.DataFrame], count: int, seed: int) -> None:
        self._folds, self._count, self._seed = folds, count, seed
        self._read: dict[int, tuple[Floats, list[str]]] = {}  # of each fold: vectors and normalised texts
        self._drawn = Counter[tuple[int, int, str]]()

    def draw(self, place: int, number: int, label: int, kind: str) -> pd.DataFrame:  # noqa: ARG002
        """`count` posts of the fold, or all if it has fewer: half of each label as far as there are."""
        fold, anchors = self._folds[place], self._anchors(place, label, kind)
        anchor = int(anchors[self._drawn[place, label, kind] % len(anchors)])
        self._drawn[place, label, kind] += 1
        labels = fold["label"].to_numpy(dtype=int)
        ranked = self._by_likeness(place, anchor)
        own, others = ([row for row in ranked if (labels[row] == labels[anchor]) == same] for same in (True, False))
        chosen = own[: self._count - min(len(others), self._count // 2)]
        chosen += others[: self._count - len(chosen)]
        return fold.iloc[sorted(chosen)]

    def _anchors(self, place: int, label: int, kind: str) -> Ints:
        """Rows of the fold with the label and type, in random order; with the label, or all, where there are none."""
        fold = self._folds[place]
        of_label = (fold["label"] == label).to_numpy(dtype=bool)
        of_kind = of_label & (fold[kind] == 1).fillna(False).to_numpy(dtype=bool) if kind else of_label
        wanted = next((rows for rows in (of_kind, of_label) if rows.any()), np.ones(len(fold), dtype=bool))
        generator = np.random.default_rng([self._seed, place, label, *kind.encode()])
        return generator.permutation(np.flatnonzero(wanted))

    def _by_likeness(self, place: int, anchor: int) -> list[int]:
        """Rows of the fold, those most like the anchor first; of several with one text the first alone."""
        if place not in self._read:
            texts = self._folds[place]["text"].tolist()
            self._read[place] = ngram_vectors(texts), [normalise(text) for text in texts]
        vectors, keys = self._read[place]
        # rounded, because the last bits of a product depend on the machine
        cosines = np.round(vectors @ vectors[anchor], 4)
        first: dict[str, int] = {}
        for row in [anchor, *np.argsort(-cosines, kind="stable").tolist()]:
            first.setdefault(keys[row], row)
        return list(first.values())


class ParentSampler:
    """Draws real posts to rewrite: different ones of one fold per request, and all about equally often."""

    def __init__(self, folds: list[pd.DataFrame], generator: np.random.Generator) -> None:
        self._folds = folds
        self._decks = [
            {label: generator.permutation(np.flatnonzero(fold["label"] == label)) for label in (0, 1)} for fold in folds
        ]
        self._drawn = [Counter[int]() for _ in folds]

    def draw(self, labels: tuple[int, ...]) -> pd.DataFrame:
        """A post of each label, in their order, of the fold whose posts were used least.

        Raises InputError if no fold has enough posts.
        """
        needs = Counter(labels)

        def use(place: int) -> float:
            """The largest share, over the labels, of the fold's posts used so far and with the next one."""
            decks, drawn = self._decks[place], self._drawn[place]
            return max(drawn[label] / len(decks[label]) + 1 / len(decks[label]) for label in needs)

        able = [
            place
            for place, decks in enumerate(self._decks)
            if all(len(decks[label]) >= need for label, need in needs.items())
        ]
        if not able:
            most = {label: max(len(decks[label]) for decks in self._decks) for label in needs}
            label = next((label for label in needs if most[label] < needs[label]), min(needs))
            raise InputError(
                f"a request to rewrite wants {needs[label]} different training posts labelled {label} of one fold, and "
                "no fold has enough: set synthesis.posts_per_request or folds.count lower, or the second of "
                "synthesis.shares to 0."
            )
        place = min(able, key=use)
        decks, drawn, rows = self._decks[place], self._drawn[place], list[int]()
        for label in labels:
            rows.append(int(decks[label][drawn[label] % len(decks[label])]))
            drawn[label] += 1
        return self._folds[place].iloc[rows]
