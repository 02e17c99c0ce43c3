"""The audit: what to know about a language's posts before trusting a score on them.

It counts and never changes a post: folds and curation decide what to do. Problems that make a file unusable are
errors of reading (posts.py), not findings.
"""

import unicodedata

import numpy as np
import pandas as pd

from polar_pipeline.corpus.shift import shift_auc
from polar_pipeline.corpus.text import CONTROL, dominant_scripts, duplicate_groups
from polar_pipeline.metrics.scores import Ints
from polar_pipeline.storage.record import Record
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.languages import language as registered

EXAMPLES = 5
# a length is an outlier when its logarithm is this many median absolute deviations from the median ...
ODD_DEVIATIONS = 5.0
# ... with at least this deviation, or every other length would be an outlier where lengths are nearly equal
SMALLEST_DEVIATION = 0.1


class Audit(Record):
    """One language's findings. Counts of texts are over all splits where a name does not say otherwise."""

    language: str
    posts_train: int
    posts_dev: int
    posts_test: int
    positive_train: float
    positive_dev: float
    types_train: dict[str, int]  # train posts with each auxiliary type that the language's files have
    duplicate_groups: int  # in train: normalised texts that several posts have
    duplicate_rows: int  # in train: the posts of those groups
    conflicting_groups: int  # in train: those groups whose posts differ in label
    cross_split_dev: int  # train posts whose normalised text is in dev too
    cross_split_test: int
    cross_split_ids: tuple[str, ...]  # a few of those train posts
    repeated_ids: int  # ids that are in several splits
    repeated_id_examples: tuple[str, ...]
    foreign_script: int  # most letters are of a script that the registry does not have for the language
    secondary_script: int  # most letters are of a registered script that is not the main one
    replacement_characters: int  # texts with U+FFFD
    double_question_marks: int
    not_nfc: int
    control_characters: int
    length_min: int
    length_median: float
    length_p95: float
    length_max: int
    length_outliers: int
    shift_auc: float


def audit(posts: pd.DataFrame, language: str, card: TaskCard, seed: int) -> Audit:
    """The findings about a posts table. Raises InputError for an unknown language or too few posts to measure shift."""
    train, dev, test = (posts[posts["split"] == split] for split in ("train", "dev", "test"))
    texts, splits = posts["text"].tolist(), posts.groupby("id")["split"].nunique()
    repeated = sorted(splits.index[splits > 1])
    known, dominant = registered(language).scripts, [script for script in dominant_scripts(texts) if script]
    types = {name: int(train[name].sum()) for name in card.auxiliary.types if train[name].notna().any()}
    return Audit.model_validate(
        {
            "language": language,
            "posts_train": len(train),
            "posts_dev": len(dev),
            "posts_test": len(test),
            "positive_train": float(train["label"].mean()),
            "positive_dev": float(dev["label"].mean()),
            "types_train": types,
            **_duplicates(posts),
            "repeated_ids": len(repeated),
            "repeated_id_examples": tuple(repeated[:EXAMPLES]),
            "foreign_script": sum(script not in known for script in dominant),
            "secondary_script": sum(script in known[1:] for script in dominant),
            **_odd_texts(texts),
            **_lengths(posts["text"]),
            "shift_auc": shift_auc(train["text"].tolist(), test["text"].tolist(), seed),
        }
    )


def _duplicates(posts: pd.DataFrame) -> dict[str, object]:
    """Duplicates within train, and train posts that are in dev or test too. Columns used: id, text, label, split."""
    rows = posts.assign(group=duplicate_groups(posts))
    train = rows[rows["split"] == "train"]
    groups = train.groupby("group")["label"].agg(["size", "nunique"])
    shared = groups[groups["size"] > 1]
    in_dev, in_test = (train["group"].isin(rows.loc[rows["split"] == split, "group"]) for split in ("dev", "test"))
    return {
        "duplicate_groups": len(shared),
        "duplicate_rows": int(shared["size"].sum()),
        "conflicting_groups": int((shared["nunique"] > 1).sum()),
        "cross_split_dev": int(in_dev.sum()),
        "cross_split_test": int(in_test.sum()),
        "cross_split_ids": tuple(train.loc[in_dev | in_test, "id"].head(EXAMPLES)),
    }


def _odd_texts(texts: list[str]) -> dict[str, object]:
    return {
        "replacement_characters": sum("\ufffd" in text for text in texts),
        "double_question_marks": sum("??" in text for text in texts),
        "not_nfc": sum(not unicodedata.is_normalized("NFC", text) for text in texts),
        "control_characters": sum(CONTROL.search(text) is not None for text in texts),
    }


def _lengths(texts: "pd.Series[str]") -> dict[str, object]:
    """Lengths in characters, as Python counts them: code points."""
    lengths: Ints = np.array([len(text) for text in texts])
    logarithms = np.log(lengths)
    distances = np.abs(logarithms - np.median(logarithms))
    deviation = max(float(np.median(distances)), SMALLEST_DEVIATION)
    return {
        "length_min": int(lengths.min()),
        "length_median": float(np.median(lengths)),
        "length_p95": float(np.quantile(lengths, 0.95)),
        "length_max": int(lengths.max()),
        "length_outliers": int((distances > ODD_DEVIATIONS * deviation).sum()),
    }
