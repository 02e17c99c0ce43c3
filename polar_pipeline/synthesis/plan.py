"""The plan: how many posts of which strategy, label and fold, and which real posts each request is shown.

Only labelled rows of train are shown, and those of one request are of one fold, which the synthetic posts inherit. So
the model that holds a fold out never trains on a post that was made from it.
"""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.corpus.posts import REAL
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Ints
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.formats import STRATEGIES, Strategy
from polar_pipeline.task.card import TaskCard


class PlannedRequest(NamedTuple):
    """What one request should bring: posts with these `labels`, in their order, after the `shown` posts of one fold."""

    strategy: Strategy
    number: int  # position in the plan
    fold: int
    labels: tuple[int, ...]
    topic: str  # an auxiliary type of the card, or "" for none in particular
    shown: pd.DataFrame  # id, text, label, fold


def plan(posts: pd.DataFrame, card: TaskCard, settings: SynthesisSettings, seed: int) -> list[PlannedRequest]:
    """The requests of one language, with strategies evenly mixed, so that any first part of the plan has all of them.

    The same posts, settings and seed give the same plan, and a plan for more posts begins like one for fewer, so that
    what was paid for stays of use. Raises InputError if there are no posts to show.
    """
    pool = prompt_pool(posts)
    labeller = LabelBalancer(pool["label"].to_numpy(dtype=int), settings.positive_share)
    topics = {strategy: _topics(pool, card, [seed, place]) for place, strategy in enumerate(STRATEGIES)}
    folds = [fold for _, fold in pool.groupby("fold", sort=True)]
    parents = ParentSampler(folds, np.random.default_rng(seed))
    planned: list[PlannedRequest] = []
    used = Counter[Strategy]()
    for strategy, size in _mix(settings):
        labels = labeller.pairs(size // 2) if strategy == "contrast" else labeller.labels(size)
        if strategy == "rewrite":
            shown, topic = parents.draw(labels), ""
        else:
            fold = folds[used[strategy] % len(folds)]
            order = np.random.default_rng([seed, len(planned)]).permutation(len(fold))
            shown, topic = fold.iloc[np.sort(order[: settings.examples])], next(topics[strategy])
        used[strategy] += 1
        shown = shown[["id", "text", "label", "fold"]]
        planned.append(PlannedRequest(strategy, len(planned), int(shown["fold"].iloc[0]), labels, topic, shown))
    return planned


def prompt_pool(posts: pd.DataFrame) -> pd.DataFrame:
    """The posts that may be shown: real, labelled rows of train that are in a fold, sorted by id.

    Raises InputError if one of the labels has none.
    """
    allowed = (posts["split"] == "train") & (posts["fold"] >= 0) & posts["label"].notna() & (posts["source"] == REAL)
    pool = posts[allowed].sort_values("id").reset_index(drop=True)
    if pool.empty or pool["label"].nunique() < 2:
        raise InputError(
            "no training posts of both labels to learn the style from: add some, or set synthesis.source to none."
        )
    return pool


class LabelBalancer:
    """Chooses labels so that real and synthetic posts together come as near as possible to a share of positives.

    Where even posts of one label alone would not reach it, a tenth have the other label, so that no label means
    "synthetic".
    """

    def __init__(self, real: Ints, share: float) -> None:
        """`real` are the labels of the real posts (0/1), `share` the wanted share of positives."""
        self._missing, self._share = share * len(real) - float(real.sum()), share
        self._posts, self._positives = 0, 0

    def labels(self, posts: int) -> tuple[int, ...]:
        """Labels of the next `posts`, evenly mixed."""
        self._posts += posts
        least, most = round(0.1 * self._posts), round(0.9 * self._posts)
        wanted = int(np.clip(round(self._missing + self._share * self._posts), least, most))
        positives = int(np.clip(wanted - self._positives, 0, posts))
        self._positives += positives
        # a post is positive where the running count of positives steps
        steps = np.floor(np.arange(posts + 1) * positives / max(posts, 1) + 1e-9)
        return tuple(int(step) for step in np.diff(steps))

    def pairs(self, count: int) -> tuple[int, ...]:
        """Labels of the next pairs, whose posts are opposite."""
        self._posts, self._positives = self._posts + 2 * count, self._positives + count
        return (1, 0) * count


def _topics(pool: pd.DataFrame, card: TaskCard, seed: list[int]) -> Iterator[str]:
    """The card's types in a random order, for ever; those with fewer positive posts come more often. "" for none."""
    known = [name for name in card.auxiliary.types if name in pool and pool[name].notna().any()]
    positives = {name: int((pool[name] == 1).sum()) for name in known}
    ranked = sorted(known, key=lambda name: (positives[name], name))
    deck = [name for place, name in enumerate(ranked) for _ in range(len(ranked) - place)] or [""]
    for turn in itertools.count():
        for place in np.random.default_rng([*seed, turn]).permutation(len(deck)):
            yield deck[place]


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


def _mix(settings: SynthesisSettings) -> Iterator[tuple[Strategy, int]]:
    """Strategy and number of posts of each request, so that any first part of them has the shares of the whole.

    Where only pairs are wanted, an odd last post is made directly.
    """
    size, left = settings.posts_per_request, settings.posts
    done = dict.fromkeys(STRATEGIES, 0)
    sizes: dict[Strategy, int] = {"direct": size, "rewrite": size, "contrast": max(size // 2, 1) * 2}
    shares = dict(zip(STRATEGIES, settings.shares, strict=True))
    while left:
        able = [name for name in STRATEGIES if shares[name] > 0 and (name != "contrast" or left > 1)] or ["direct"]
        made = sum(done.values())
        strategy = max(able, key=lambda name: shares[name] * (made + sizes[name]) - done[name] - sizes[name] / 2)
        posts = min(sizes[strategy], left - left % 2 if strategy == "contrast" else left)
        done[strategy], left = done[strategy] + posts, left - posts
        yield strategy, posts
