"""The plan: how many posts of which strategy, label and fold, and which real posts each request is shown.

Only labelled rows of train may be shown, and those of one request are of one fold: a synthetic post inherits it, so the model
that holds the fold out never trains on a post that was made from what it is judged on. A plan is the same for the same posts,
settings and seed. What does not belong here: the words of a prompt.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.corpus.posts import REAL
from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.parents import Labels, Parents
from polar_pipeline.synthesis.request import STRATEGIES, Strategy
from polar_pipeline.task.card import TaskCard


class Errand(NamedTuple):
    """What one request should bring: `labels` of the posts wanted, about `topic`, after the `shown` posts of one fold."""

    strategy: Strategy
    number: int
    fold: int
    labels: tuple[int, ...]
    topic: str  # an auxiliary type of the card, those that train lacks more often, or "" for none in particular
    shown: pd.DataFrame  # id, text, label, fold


def plan(posts: pd.DataFrame, card: TaskCard, settings: SynthesisSettings, seed: int) -> list[Errand]:
    """The errands of one language, strategies evenly mixed, so that a plan that a cap cuts short still has all of them.

    A plan for more posts begins as one for fewer does, so that what was paid for stays of use. Raises InputError when there is
    nothing to show.
    """
    pool = prompt_pool(posts)
    balance = Balance(pool["label"].to_numpy(dtype=int), settings.positive_share)
    topics = {strategy: Topics(pool, card, [seed, place]) for place, strategy in enumerate(STRATEGIES)}
    folds = [fold for _, fold in pool.groupby("fold", sort=True)]
    parents = Parents(folds, np.random.default_rng(seed))
    errands: list[Errand] = []
    places = Counter[Strategy]()
    for strategy, size in _mixed(settings):
        labels = balance.pairs(size // 2) if strategy == "contrast" else balance.labels(size)
        if strategy == "rewrite":
            shown, topic = parents.draw(labels), ""
        else:
            fold = folds[places[strategy] % len(folds)]
            order = np.random.default_rng([seed, len(errands)]).permutation(len(fold))
            shown, topic = fold.iloc[np.sort(order[: settings.examples])], topics[strategy].draw()
        places[strategy] += 1
        number, of = len(errands), int(shown["fold"].iloc[0])
        errands.append(Errand(strategy, number, of, labels, topic, shown[["id", "text", "label", "fold"]]))
    return errands


def prompt_pool(posts: pd.DataFrame) -> pd.DataFrame:
    """The posts that may stand in a prompt: real, labelled rows of train that are in a fold. Sorted by id."""
    allowed = (posts["split"] == "train") & (posts["fold"] >= 0) & posts["label"].notna() & (posts["source"] == REAL)
    pool = posts[allowed].sort_values("id").reset_index(drop=True)
    if pool.empty or pool["label"].nunique() < 2:
        raise InputError(
            "no training posts of both labels to learn the style from: add some, or set synthesis.source to none."
        )
    return pool


class Balance:
    """Deals labels so that real and synthetic posts together come as near as they can to a share of positives, at every moment.

    Where even all of one label would not reach it, all are of that label but a tenth, so that no label says "synthetic".
    """

    def __init__(self, real: Labels, share: float) -> None:
        self._lacking, self._share = share * len(real) - float(real.sum()), share
        self._made, self._positives = 0, 0

    def labels(self, posts: int) -> tuple[int, ...]:
        """Labels of the next `posts`, evenly mixed."""
        self._made += posts
        positives = int(np.clip(self._wanted() - self._positives, 0, posts))
        self._positives += positives
        # as even as can be: post i is positive when the running count steps
        steps = np.floor(np.arange(posts + 1) * positives / max(posts, 1) + 1e-9)
        return tuple(int(step) for step in np.diff(steps))

    def pairs(self, count: int) -> tuple[int, ...]:
        """Labels of the next pairs, whose posts are opposite."""
        self._made, self._positives = self._made + 2 * count, self._positives + count
        return (1, 0) * count

    def _wanted(self) -> int:
        """Positives among all that were dealt."""
        least, most = round(0.1 * self._made), round(0.9 * self._made)
        return int(np.clip(round(self._lacking + self._share * self._made), least, most))


class Topics:
    """The card's types in a random order, one after the other: the fewer positive training posts a type has, the more often."""

    def __init__(self, pool: pd.DataFrame, card: TaskCard, seed: list[int]) -> None:
        known = [name for name in card.auxiliary.types if name in pool and pool[name].notna().any()]
        positives = {name: int((pool[name] == 1).sum()) for name in known}
        ranked = sorted(known, key=lambda name: (positives[name], name))
        self._deck = [name for place, name in enumerate(ranked) for _ in range(len(ranked) - place)]
        self._seed, self._dealt = seed, 0

    def draw(self) -> str:
        """The next type; "" where the files have none."""
        if not self._deck:
            return ""
        turn, place = divmod(self._dealt, len(self._deck))
        self._dealt += 1
        return self._deck[int(np.random.default_rng([*self._seed, turn]).permutation(len(self._deck))[place])]


def _mixed(settings: SynthesisSettings) -> Iterator[tuple[Strategy, int]]:
    """Strategies and numbers of posts of one request after the other, so that any first part has the shares that the whole has.

    A post that is left over where only pairs are wanted is made directly.
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
