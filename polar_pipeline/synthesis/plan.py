"""The plan: how many posts of which strategy, label and fold, and which real posts each request is shown.

Only labelled rows of train may be shown, and those of one request are of one fold: a synthetic post inherits it, so the model
that holds the fold out never trains on a post that was made from what it is judged on. A plan is the same for the same posts,
settings and seed. What does not belong here: the words of a prompt.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.corpus.posts import REAL
from polar_pipeline.errors import InputError
from polar_pipeline.synthesis.request import STRATEGIES, Strategy
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.profile import SynthesisSettings


class Errand(NamedTuple):
    """What one request should bring: `labels` of the posts wanted, about `topic`, after the `shown` posts of one fold."""

    strategy: Strategy
    number: int
    fold: int
    labels: tuple[int, ...]
    topic: str  # an auxiliary type of the card that train lacks most, or "" for none in particular
    shown: pd.DataFrame  # id, text, label, fold


def plan(posts: pd.DataFrame, card: TaskCard, settings: SynthesisSettings, seed: int) -> list[Errand]:
    """The errands of one language, strategies one after the other. Raises InputError when there is nothing to show."""
    pool = prompt_pool(posts)
    generator = np.random.default_rng(seed)
    labels = wanted_labels(pool["label"].to_numpy(dtype=int), settings.posts, settings.positive_share)
    topics = rare_topics(pool, card)
    folds = [pool[pool["fold"] == fold] for fold in sorted(pool["fold"].unique())]
    errands: list[Errand] = []
    start = 0
    for strategy, count in zip(STRATEGIES, counts(settings), strict=True):
        mine = labels[start : start + count]
        start += count
        for batch in _batches(mine, strategy, settings.posts_per_request):
            fold = len(errands) % len(folds)
            shown = _shown(folds[fold], strategy, batch, settings.examples, generator)
            topic = topics[len(errands) % len(topics)] if topics and 1 in batch and strategy != "rewrite" else ""
            errands.append(Errand(strategy, len(errands), int(shown["fold"].iloc[0]), batch, topic, shown))
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


def counts(settings: SynthesisSettings) -> tuple[int, int, int]:
    """Posts by strategy: direct, rewrite, contrast; contrastive ones come in pairs."""
    direct, rewrite, contrast = settings.shares
    whole = direct + rewrite + contrast
    pairs = 2 * int(settings.posts * contrast / whole / 2)
    rewritten = min(round(settings.posts * rewrite / whole), settings.posts - pairs)
    return settings.posts - rewritten - pairs, rewritten, pairs


def wanted_labels(real: "np.typing.NDArray[np.int64]", posts: int, share: float) -> "np.typing.NDArray[np.int64]":
    """Labels of `posts` synthetic posts, evenly mixed, that bring the share of positives towards `share` of all posts.

    Where even all of one label would not reach it, all are of that label but a tenth, so that no label says "synthetic".
    """
    wanted = share * (len(real) + posts) - real.sum()
    positives = int(np.clip(round(wanted), round(0.1 * posts), round(0.9 * posts)))
    # as even as can be: post i is positive when the running count steps
    steps = np.floor(np.arange(1, posts + 1) * positives / max(posts, 1))
    labels: np.typing.NDArray[np.int64] = np.diff(np.concatenate([[0.0], steps])).astype(np.int64)
    return labels


def rare_topics(pool: pd.DataFrame, card: TaskCard) -> list[str]:
    """The card's types, those with the fewest positive training posts first; a type counts as often as it lacks posts."""
    known = [name for name in card.auxiliary.types if name in pool and pool[name].notna().any()]
    positives = {name: int((pool[name] == 1).sum()) for name in known}
    found = sorted(known, key=lambda name: (positives[name], name))
    return [name for place, name in enumerate(found) for _ in range(len(found) - place)]


def _batches(labels: "np.typing.NDArray[np.int64]", strategy: Strategy, size: int) -> list[tuple[int, ...]]:
    """Labels in lots of a request; those of a pair are opposite."""
    if strategy == "contrast":
        pairs = [(1, 0)] * (len(labels) // 2)
        per_request = max(size // 2, 1)
        return [sum(pairs[at : at + per_request], ()) for at in range(0, len(pairs), per_request)]
    return [tuple(int(label) for label in labels[at : at + size]) for at in range(0, len(labels), size)]


def _shown(
    fold: pd.DataFrame, strategy: Strategy, labels: tuple[int, ...], examples: int, generator: np.random.Generator
) -> pd.DataFrame:
    """For rewriting a post of each label, in their order; otherwise examples of the style, whatever their labels."""
    if strategy == "rewrite":
        by_label = {label: np.flatnonzero(fold["label"] == label) for label in set(labels)}
        chosen = [int(generator.choice(by_label[label])) for label in labels]
        return fold.iloc[chosen][["id", "text", "label", "fold"]]
    rows = generator.permutation(len(fold))[:examples]
    return fold.iloc[np.sort(rows)][["id", "text", "label", "fold"]]
