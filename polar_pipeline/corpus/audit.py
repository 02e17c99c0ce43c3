"""The audit: what to know about a language's posts before trusting a score on them, covariate shift included.

It counts and never changes a post: folds and curation decide what to do. Problems that make a file unusable are
errors of reading (posts.py), not findings.
"""

import unicodedata

import numpy as np
import pandas as pd

from polar_pipeline.corpus.folds import deal
from polar_pipeline.corpus.text import CONTROL, dominant_scripts, duplicate_groups
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Ints
from polar_pipeline.storage.record import Record
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.languages import language as registered

EXAMPLES = 5
# a length is an outlier when its logarithm is this many median absolute deviations from the median ...
ODD_DEVIATIONS = 5.0
# ... with at least this deviation, or every other length would be an outlier where lengths are nearly equal
SMALLEST_DEVIATION = 0.1

SHIFT_FOLDS, SHIFT_FEATURES = 5, 2**17
# posts of train, and of test, by which shift is measured: a standard error of about 0.01, and a second on one core
SHIFT_POSTS = 1500


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


def shift_auc(train_texts: list[str], test_texts: list[str], seed: int) -> float:
    """Covariate shift without labels: how well a classifier tells train posts from test posts by character n-grams.

    Cross-validated AUC, the mean over folds (a classifier two-sample test, Lopez-Paz & Oquab 2017): 0.5 means that it
    cannot; near 1, test comes from another source, so that out-of-fold scores are too optimistic. Deterministic.
    Duplicates share a fold, so that a post with a duplicate on the other side is scored by a model that saw neither.
    Raises InputError when a side has fewer than two distinct posts.
    """
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import PredefinedSplit, cross_val_score

    train, test = _sample(train_texts, seed), _sample(test_texts, seed + 1)
    sides = np.repeat([0, 1], [len(train), len(test)])
    groups = duplicate_groups(pd.DataFrame({"text": train + test}))
    distinct = [len(np.unique(groups[sides == side])) for side in (0, 1)]
    if min(distinct) < 2:
        raise InputError(
            "shift is measured between two sides of at least 2 distinct posts, "
            f"not {distinct[0]} in train and {distinct[1]} in test: add posts."
        )
    # document frequencies of both sides: unlabelled text may be used
    counts = HashingVectorizer(
        analyzer="char_wb", ngram_range=(2, 4), n_features=SHIFT_FEATURES, alternate_sign=False, norm=None
    ).transform(train + test)
    features = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    # a loose tolerance changes the AUC by less than 0.001 and saves a third of the time
    model = LogisticRegression(solver="liblinear", random_state=0, tol=1e-2)
    folds = PredefinedSplit(deal(groups, sides, min(SHIFT_FOLDS, *distinct), seed))
    return float(cross_val_score(model, features, sides, cv=folds, scoring="roc_auc").mean())


def _sample(texts: list[str], seed: int) -> list[str]:
    if len(texts) <= SHIFT_POSTS:
        return texts
    chosen = np.random.default_rng(seed).choice(len(texts), size=SHIFT_POSTS, replace=False)
    return [texts[row] for row in np.sort(chosen)]
