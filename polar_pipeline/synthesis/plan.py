"""The plan: how many posts of which strategy, label, type and fold, and which real posts each request is shown.

Only labelled rows of train are shown, and those of one request are of one fold, which the synthetic posts inherit. So
the model that holds a fold out never trains on a post that was made from it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.corpus.posts import REAL
from polar_pipeline.endpoint.formats import STRATEGIES, Strategy
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Ints
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.examples import ParentSampler, make_examples
from polar_pipeline.task.card import TaskCard

_LEAST = 0.1  # share of posts that are of another label, or of any type, than those that are lacking


class PlannedRequest(NamedTuple):
    """What one request should bring: posts with these `labels`, in their order, after the `shown` posts of one fold."""

    strategy: Strategy
    number: int  # position in the plan
    fold: int
    labels: tuple[int, ...]
    topic: str  # the type of the card that positive posts are to have and all are about; "" for none in particular
    shown: pd.DataFrame  # id, text, label, fold


class _Outline(NamedTuple):
    """A planned request without the real posts that it shows."""

    strategy: Strategy
    labels: tuple[int, ...]
    topic: str
    place: int  # of the fold that examples come from; posts to rewrite come from the fold that was used least


def plan(posts: pd.DataFrame, card: TaskCard, settings: SynthesisSettings, seed: int) -> list[PlannedRequest]:
    """The requests of one language, with strategies evenly mixed, so that any first part of the plan has all of them.

    The same posts, settings and seed give the same plan, and a plan for more posts begins like one for fewer, so that
    what was paid for stays of use. Raises InputError if there are no posts to show.
    """
    pool = prompt_pool(posts)
    folds = [fold for _, fold in pool.groupby("fold", sort=True)]
    parents, examples = ParentSampler(folds, np.random.default_rng(seed)), make_examples(folds, settings, seed)
    planned: list[PlannedRequest] = []
    for strategy, labels, topic, place in _outline(pool, len(folds), card, settings):
        if strategy == "rewrite":
            shown = parents.draw(labels)
        else:
            lacking = int(2 * sum(labels) >= len(labels))
            shown = examples.draw(place, len(planned), lacking, topic if lacking else "")
        shown = shown[["id", "text", "label", "fold"]]
        planned.append(PlannedRequest(strategy, len(planned), int(shown["fold"].iloc[0]), labels, topic, shown))
    return planned


def _outline(pool: pd.DataFrame, folds: int, card: TaskCard, settings: SynthesisSettings) -> Iterator[_Outline]:
    """The requests of the plan before real posts are chosen for them."""
    labeller = LabelBalancer(pool["label"].to_numpy(dtype=int), settings.positive_share, settings.minority_only)
    types, used = TypeBalancer(pool, card), Counter[Strategy]()
    for strategy, size in _mix(settings):
        labels = labeller.pairs(size // 2) if strategy == "contrast" else labeller.labels(size)
        place = used[strategy] % folds
        # a rewritten post keeps the type of its parent
        topic = "" if strategy == "rewrite" else types.deal(place, sum(labels))
        used[strategy] += 1
        yield _Outline(strategy, labels, topic, place)


def asked_types(posts: pd.DataFrame, card: TaskCard, settings: SynthesisSettings) -> dict[str, int]:
    """How many positive posts of each type of the card the plan asks for; empty where it asks for no type."""
    if settings.source != "endpoint":
        return {}
    pool, asked = prompt_pool(posts), Counter[str]()
    for one in _outline(pool, pool["fold"].nunique(), card, settings):
        asked[one.topic] += sum(one.labels)
    return {name: asked[name] for name in card.auxiliary.types if name in asked}


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
    "synthetic". With `minority_only`, all have the label that fewer real posts have (positive if both have as many).
    """

    def __init__(self, real: Ints, share: float, minority_only: bool = False) -> None:
        """`real` are the labels of the real posts (0/1), `share` the wanted share of positives."""
        self._missing, self._share = share * len(real) - float(real.sum()), share
        self._posts, self._positives = 0, 0
        self._only = int(2 * real.sum() <= len(real)) if minority_only else None

    def labels(self, posts: int) -> tuple[int, ...]:
        """Labels of the next `posts`, evenly mixed."""
        if self._only is not None:
            return (self._only,) * posts
        self._posts += posts
        least, most = round(_LEAST * self._posts), round((1 - _LEAST) * self._posts)
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


class TypeBalancer:
    """Deals the card's types: the fewer positive posts a type has beside the others, the more often it comes.

    A type's share of the requests is what it lacks to the type with the most positive posts, those asked for so far
    included. A tenth goes to all types alike, so that each comes up. Shares hold in every fold as in the whole.
    """

    def __init__(self, pool: pd.DataFrame, card: TaskCard) -> None:
        """`pool` are the real posts; types that none of them has a label for are not dealt."""
        known = [name for name in card.auxiliary.types if name in pool and pool[name].notna().any()]
        positive = (pool["label"] == 1).to_numpy(dtype=bool)
        self._positives = {name: int((pool.loc[positive, name] == 1).sum()) for name in known}
        # requests that a type was owed less those that it got: in all, and in each fold
        self._owed: dict[str, float] = dict.fromkeys(known, 0.0)
        self._owed_in: defaultdict[int, dict[str, float]] = defaultdict(lambda: dict.fromkeys(known, 0.0))

    def deal(self, place: int, positives: int) -> str:
        """The type of a request for so many positive posts from the fold at `place`; "" where the card has none."""
        if not self._positives:
            return ""
        for owed in (self._owed, self._owed_in[place]):
            for name, share in self.shares().items():
                owed[name] += share
        chosen = max(self._positives, key=lambda name: self._owed[name] + self._owed_in[place][name])
        for owed in (self._owed, self._owed_in[place]):
            owed[chosen] -= 1
        self._positives[chosen] += positives
        return chosen

    def shares(self) -> dict[str, float]:
        """Each type's share of the next requests."""
        most = max(self._positives.values())
        lacking = {name: most - count for name, count in self._positives.items()}
        whole, even = sum(lacking.values()), 1 / len(lacking)
        return {
            name: (1 - _LEAST) * (lack / whole if whole else even) + _LEAST * even for name, lack in lacking.items()
        }


def _mix(settings: SynthesisSettings) -> Iterator[tuple[Strategy, int]]:
    """Strategy and number of posts of each request, so that any first part of them has the shares of the whole.

    Where only pairs are wanted, an odd last post is made directly.
    """
    size, left = settings.posts_per_request, settings.posts
    done = dict.fromkeys(STRATEGIES, 0)
    sizes: dict[Strategy, int] = {"direct": size, "rewrite": size, "contrast": max(size // 2, 1) * 2}
    shares = dict(zip(STRATEGIES, _shares(settings), strict=True))
    while left:
        able = [name for name in STRATEGIES if shares[name] > 0 and (name != "contrast" or left > 1)] or ["direct"]
        made = sum(done.values())
        strategy = max(able, key=lambda name: shares[name] * (made + sizes[name]) - done[name] - sizes[name] / 2)
        posts = min(sizes[strategy], left - left % 2 if strategy == "contrast" else left)
        done[strategy], left = done[strategy] + posts, left - posts
        yield strategy, posts


def _shares(settings: SynthesisSettings) -> tuple[float, float, float]:
    """Those of the settings; without pairs where only one label is wanted."""
    direct, rewrite, contrast = settings.shares
    if not settings.minority_only:
        return direct, rewrite, contrast
    whole = direct + rewrite
    return (direct / whole, rewrite / whole, 0.0) if whole else (1.0, 0.0, 0.0)
