"""Which labels are probably wrong: posts whose out-of-fold scores contradict their label, and copies that disagree.

Confident learning (Northcutt, Jiang & Chuang 2021): a post counts as of another class when its probability of that
class is at least the mean that posts with that label have. Posts are ranked by the probability of their own label.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from polar_pipeline.corpus.labels import target_labels
from polar_pipeline.corpus.text import duplicate_groups
from polar_pipeline.decision.predictions import csv_bytes
from polar_pipeline.metrics.scores import Floats, Ints
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.task.card import TaskCard

CONTRADICTED, DISAGREEING = "contradicts its score", "copies have other labels"
_COLUMNS = ["split", "id", "label", "suggested", "probability", "reason", "text"]


def label_errors(posts: pd.DataFrame, probabilities: Floats) -> pd.DataFrame:
    """The posts whose labels are doubtful, most doubtful first: split, id, label, suggested, probability, reason, text.

    `posts` has split, id, text and label, the number of a class; `probabilities` (posts, classes) are out of fold.
    `probability` is that of the suggested label. A copy of a post is suggested the label of most copies, or where they
    are as many, the likeliest of those.
    """
    labels, rows = posts["label"].to_numpy(dtype=int), np.arange(len(posts))
    classes = probabilities.shape[1]
    own = probabilities[rows, labels]
    there = np.unique(labels)
    usual = np.full(classes, np.inf)  # of a class without posts nothing is likely enough
    usual[there] = [float(own[labels == label].mean()) for label in there]
    others = np.where((probabilities >= usual) & (np.arange(classes) != labels[:, None]), probabilities, -np.inf)
    likeliest = others.argmax(axis=1) if len(posts) else labels
    other = others[rows, likeliest]
    # a post that is likely enough for both classes is of the likelier one
    wrong = np.isfinite(other) & ((own < usual[labels]) | (own < other))
    suggested = np.where(wrong, likeliest, labels)
    votes = _votes(posts, labels, classes)
    most = np.where(votes == votes.max(axis=1, keepdims=True, initial=0), probabilities, -np.inf)
    apart = (votes > 0).sum(axis=1) > 1
    suggested = np.where(apart, most.argmax(axis=1) if len(posts) else labels, suggested)
    reasons = np.where(apart, DISAGREEING, CONTRADICTED)
    table = posts[["split", "id"]].assign(
        label=labels,
        suggested=suggested,
        probability=probabilities[rows, suggested],
        reason=reasons,
        text=posts["text"],
    )
    ranked = table.assign(own=own)[suggested != labels].sort_values(["own", "split", "id"], kind="stable")
    found: pd.DataFrame = ranked[_COLUMNS].reset_index(drop=True)
    return found


def _votes(posts: pd.DataFrame, labels: Ints, classes: int) -> Ints:
    """How many copies of each post have each label, itself included (posts, classes)."""
    groups = duplicate_groups(posts)
    counts = np.zeros((int(groups.max(initial=-1)) + 1, classes), dtype=int)
    np.add.at(counts, (groups, labels), 1)
    votes: Ints = counts[groups]
    return votes


def doubtful_labels(posts: pd.DataFrame, predictions: pd.DataFrame, card: TaskCard) -> pd.DataFrame:
    """The `label_errors` of decided posts, in the card's words, for each label of a multilabel task in turn.

    `predictions` are their rows of the table of `predict_targets`; a multilabel task has a column `target` too.
    """
    probabilities = [rows["probability"].to_numpy(dtype=float) for _, rows in predictions.groupby("target", sort=False)]
    if card.kind == "multiclass":
        return _worded(label_errors(posts, np.stack(probabilities, axis=1)), card.class_word)
    found = []
    for (name, labels), positive in zip(target_labels(posts, card).items(), probabilities, strict=True):
        table = label_errors(posts.assign(label=labels), np.stack([1 - positive, positive], axis=1))
        found.append(_worded(table, card.label.word))
        if card.labels:
            found[-1].insert(0, "target", str(name))
    return pd.concat(found, ignore_index=True)


def _worded(errors: pd.DataFrame, word: Callable[[int], str]) -> pd.DataFrame:
    return errors.assign(label=errors["label"].map(word), suggested=errors["suggested"].map(word))


def write_label_errors(path: Path, errors: pd.DataFrame) -> Path:
    """Write the table of `doubtful_labels` as CSV. Atomic."""
    return write_atomic(path, csv_bytes(errors))
