"""Folds: every labelled post is held out once, and posts that are the same are held out together.

scikit-learn's StratifiedGroupKFold does the same job but needs 0.9 s for 7,000 posts; this needs hundredths of one,
and is dealt by ids, so that the order of a file's rows changes nothing. What does not belong here: training.
"""

import numpy as np
import pandas as pd

from polar_pipeline.corpus.text import duplicate_groups
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Ints
from polar_pipeline.settings.profile import FoldSettings


def assign_folds(posts: pd.DataFrame, settings: FoldSettings, seed: int) -> pd.DataFrame:
    """A copy of `posts` with `fold` 0..k-1 on train rows, on dev rows too if `fit_on` says so, and -1 elsewhere (everywhere, with 0 folds).

    Folds are stratified by label, and posts that are the same once normalised share one. The same posts and seed give
    the same folds in whatever order the rows come. Raises InputError when a class is too small for so many folds.
    """
    posts = posts.reset_index(drop=True)
    if settings.count == 0:
        return posts.assign(fold=pd.Series(-1, index=posts.index, dtype="Int8"))
    fitted = posts["split"].isin(settings.fit_on.split("+"))
    rows = posts[fitted].sort_values(["id", "split"], kind="stable")
    groups, labels = duplicate_groups(rows), rows["label"].to_numpy(dtype=np.int64)
    _refuse_small_classes(rows, groups, labels, settings)
    folds = pd.Series(-1, index=posts.index, dtype="Int8")
    folds[rows.index] = deal(groups, labels, settings.count, seed)
    return posts.assign(fold=folds)


def scored_posts(posts: pd.DataFrame) -> pd.DataFrame:
    """The posts that need scores: all; where there are no folds, those outside train, whose scores nobody would look at."""
    return posts if (posts["fold"] >= 0).any() else posts[posts["split"] != "train"]


def deal(groups: Ints, labels: Ints, count: int, seed: int) -> Ints:
    """The fold of each row: groups whole, both classes spread evenly. `groups` are 0..g-1, `labels` 0/1, both (n,).

    Groups are dealt in a random order, first those with both labels, then larger before smaller, each to the fold that
    has least of its classes. When each class is in at least `count` groups, each fold gets both: mixed groups go to empty
    folds while there are any, and a pure one goes to a fold without its class while there is any.
    """
    cells = np.zeros((groups.max() + 1, 2))
    np.add.at(cells, (groups, labels), 1)
    shuffled = np.random.default_rng(seed).permutation(len(cells))
    sizes, mixed = cells.sum(axis=1), cells.min(axis=1) > 0
    order = shuffled[np.lexsort((-sizes[shuffled], ~mixed[shuffled]))]
    weights = cells / np.maximum(cells.sum(axis=0), 1)
    held = np.zeros((count, 2))
    fold_of = np.zeros(len(cells), dtype=np.int64)
    for group in order:
        cost = held @ weights[group]
        # among the folds that have equally little of its classes, the smallest
        fold = np.lexsort((held.sum(axis=1), cost))[0]
        held[fold] += cells[group]
        fold_of[group] = fold
    return fold_of[groups]


def _refuse_small_classes(rows: pd.DataFrame, groups: Ints, labels: Ints, settings: FoldSettings) -> None:
    for label in (0, 1):
        distinct = len(np.unique(groups[labels == label]))
        if distinct < settings.count:
            language = str(rows["id"].iloc[0]).partition("_")[0] if len(rows) else "this language"
            remedy = f"set folds.count to at most {distinct}" if distinct > 1 else "give more posts of that class"
            raise InputError(
                f"{language} has {distinct} distinct posts labelled {label} in {settings.fit_on}, "
                f"fewer than the {settings.count} folds: {remedy}."
            )
