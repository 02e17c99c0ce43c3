"""Which labels are probably wrong: posts whose out-of-fold score contradicts their label, and copies that disagree.

Confident learning (Northcutt, Jiang & Chuang 2021): a post counts as of the other class when its probability of that
class is at least the mean that posts with that label have. Posts are ranked by the probability of their own label.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from polar_pipeline.corpus.text import duplicate_groups
from polar_pipeline.decision.predictions import csv_bytes
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.task.card import TaskCard

CONTRADICTED, DISAGREEING = "contradicts its score", "copies have other labels"


def label_errors(posts: pd.DataFrame) -> pd.DataFrame:
    """The posts whose labels are doubtful, most doubtful first: split, id, label, suggested, probability, reason, text.

    `posts` has split, id, text, label (0/1) and `probability`, the out-of-fold one of being positive. A copy of a post
    is suggested the label of most copies, or where they are as many, that of its score.
    """
    labels = posts["label"].to_numpy(dtype=int)
    probabilities = posts["probability"].to_numpy(dtype=float)
    own = np.where(labels == 1, probabilities, 1 - probabilities)
    suggested = labels.copy()
    if len(np.unique(labels)) == 2:
        usual = {label: float(own[labels == label].mean()) for label in (0, 1)}
        other = np.where(labels == 1, usual[0], usual[1])
        mine = np.where(labels == 1, usual[1], usual[0])
        # a post that is likely enough for both classes is of the likelier one
        wrong = (1 - own >= other) & ((own < mine) | (own < 0.5))
        suggested[wrong] = 1 - labels[wrong]
    reasons = np.where(suggested != labels, CONTRADICTED, "")
    groups = pd.Series(duplicate_groups(posts))
    votes = pd.Series(labels).groupby(groups.to_numpy()).transform("mean").to_numpy()
    apart = (votes > 0) & (votes < 1)
    common = np.where(votes == 0.5, probabilities >= 0.5, votes > 0.5).astype(int)
    suggested = np.where(apart, common, suggested)
    reasons = np.where(apart & (suggested != labels), DISAGREEING, np.where(apart, "", reasons))
    table = posts[["split", "id"]].assign(
        label=labels, suggested=suggested, probability=probabilities, reason=reasons, text=posts["text"]
    )
    ranked = table.assign(own=own)[reasons != ""].sort_values(["own", "split", "id"], kind="stable")
    found: pd.DataFrame = ranked.drop(columns="own").reset_index(drop=True)
    return found


def write_label_errors(path: Path, errors: pd.DataFrame, card: TaskCard) -> Path:
    """Write them as CSV, labels in the words of the card. Atomic."""
    worded = errors.assign(
        label=errors["label"].map(card.label.word), suggested=errors["suggested"].map(card.label.word)
    )
    return write_atomic(path, csv_bytes(worded))
