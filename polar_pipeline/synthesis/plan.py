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
from polar_pipeline.synthesis.parents import Labels, Parents
from polar_pipeline.synthesis.request import STRATEGIES, Strategy
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.synthesis import SynthesisSettings


class Errand(NamedTuple):
    """What one request should bring: `labels` of the posts wanted, about `topic`, after the `shown` posts of one fold."""

    strategy: Strategy
    number: int
    fold: int
    labels: tuple[int, ...]
    topic: str  # an auxiliary type of the card that train lacks most, or "" for none in particular
    shown: pd.DataFrame  # id, text, label, fold


def plan(posts: pd.DataFrame, card: TaskCard, settings: SynthesisSettings, seed: int) -> list[Errand]:
    """The errands of one language, strategies evenly mixed, so that a plan that a cap cuts short still has all of them.

    Raises InputError when there is nothing to show.
    """
    pool = prompt_pool(posts)
    generator = np.random.default_rng(seed)
    labels = wanted_labels(pool["label"].to_numpy(dtype=int), settings.posts, settings.positive_share)
    topics = rare_topics(pool, card)
    folds = [fold for _, fold in pool.groupby("fold", sort=True)]
    parents = Parents(folds, generator)
    errands: list[Errand] = []
    for place, strategy, batch in _mixed(labels, settings):
        if strategy == "rewrite":
            shown = parents.draw(batch)
        else:
            fold = folds[place % len(folds)]
            shown = fold.iloc[np.sort(generator.permutation(len(fold))[: settings.examples])]
        topic = topics[len(errands) % len(topics)] if topics and 1 in batch and strategy != "rewrite" else ""
        number, of = len(errands), int(shown["fold"].iloc[0])
        errands.append(Errand(strategy, number, of, batch, topic, shown[["id", "text", "label", "fold"]]))
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
    _, rewrite, contrast = settings.shares
    pairs = 2 * int(settings.posts * contrast / 2)
    rewritten = min(round(settings.posts * rewrite), settings.posts - pairs)
    return settings.posts - rewritten - pairs, rewritten, pairs


def wanted_labels(real: Labels, posts: int, share: float) -> Labels:
    """Labels of `posts` synthetic posts, evenly mixed, that bring the share of positives towards `share` of all posts.

    Where even all of one label would not reach it, all are of that label but a tenth, so that no label says "synthetic".
    """
    wanted = share * (len(real) + posts) - real.sum()
    positives = int(np.clip(round(wanted), round(0.1 * posts), round(0.9 * posts)))
    # as even as can be: post i is positive when the running count steps
    steps = np.floor(np.arange(1, posts + 1) * positives / max(posts, 1))
    labels: Labels = np.diff(np.concatenate([[0.0], steps])).astype(np.int64)
    return labels


def rare_topics(pool: pd.DataFrame, card: TaskCard) -> list[str]:
    """The card's types, those with the fewest positive training posts first; a type counts as often as it lacks posts."""
    known = [name for name in card.auxiliary.types if name in pool and pool[name].notna().any()]
    positives = {name: int((pool[name] == 1).sum()) for name in known}
    found = sorted(known, key=lambda name: (positives[name], name))
    return [name for place, name in enumerate(found) for _ in range(len(found) - place)]


def _mixed(labels: Labels, settings: SynthesisSettings) -> list[tuple[int, Strategy, tuple[int, ...]]]:
    """The batches of all strategies, each with its place among those of its strategy, in such an order that any part of it
    has them in about the shares that the whole has.
    """
    found: list[tuple[float, int, Strategy, tuple[int, ...]]] = []
    start = 0
    for strategy, count in zip(STRATEGIES, counts(settings), strict=True):
        batches = _batches(labels[start : start + count], strategy, settings.posts_per_request)
        start += count
        found += [((place + 0.5) / len(batches), place, strategy, batch) for place, batch in enumerate(batches)]
    return [(place, strategy, batch) for _, place, strategy, batch in sorted(found, key=lambda item: item[0])]


def _batches(labels: Labels, strategy: Strategy, size: int) -> list[tuple[int, ...]]:
    """Labels in lots of a request; those of a pair are opposite."""
    if strategy == "contrast":
        pairs = [(1, 0)] * (len(labels) // 2)
        per_request = max(size // 2, 1)
        return [sum(pairs[at : at + per_request], ()) for at in range(0, len(pairs), per_request)]
    return [tuple(int(label) for label in labels[at : at + size]) for at in range(0, len(labels), size)]
