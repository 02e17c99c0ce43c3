"""The audit: what to know about a language's posts before trusting a score on them.

It counts and never changes a post: folds and curation decide what to do. Problems that make a file unusable are
errors of reading (posts.py), not findings.
"""

import unicodedata

import numpy as np
import pandas as pd

from polar_pipeline.corpus.identification import is_identified, language_shares
from polar_pipeline.corpus.shift import shift_auc
from polar_pipeline.corpus.text import CONTROL, dominant_scripts, duplicate_groups
from polar_pipeline.metrics.scores import Ints
from polar_pipeline.storage.record import Record
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.languages import Language
from polar_pipeline.task.languages import language as registered

EXAMPLES = 5
# a length is an outlier when its logarithm is this many median absolute deviations from the median ...
ODD_DEVIATIONS = 5.0
# ... with at least this deviation, or every other length would be an outlier where lengths are nearly equal
SMALLEST_DEVIATION = 0.1
MANY_OTHERS = 0.2  # share of posts in other languages from which a file may be of another language
_COMMON = 0.05  # share of posts from which another language is worth naming


class Audit(Record):
    """One language's findings. Counts of texts are over all splits where a name does not say otherwise."""

    language: str
    posts_train: int
    posts_dev: int
    posts_test: int
    positive_train: float  # of a multiclass task, the share of the largest class
    positive_dev: float | None  # None without labels
    types_train: dict[str, int]  # train posts with each label or auxiliary type that the language's files have
    duplicate_groups: int  # in train: normalised texts that several posts have
    duplicate_rows: int  # in train: the posts of those groups
    conflicting_groups: int  # in train: those groups whose posts differ in label
    cross_split_dev: int  # train posts whose normalised text is in dev too
    cross_split_test: int
    cross_split_ids: tuple[str, ...]  # a few of those train posts
    repeated_ids: int  # ids that are in several splits
    repeated_id_examples: tuple[str, ...]
    other_languages: dict[str, float]  # shares of posts that are surely in others, where an identifier knows this one
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
    shift_auc: float | None  # None where there are no two sides to compare

    @property
    def language_doubt(self) -> str:
        """In words, that too many posts seem to be in other languages; empty if they are not."""
        return doubt_in_words(self.other_languages, self.language)


def audit(posts: pd.DataFrame, language: str, card: TaskCard, seed: int) -> Audit:
    """The findings about a posts table. Raises InputError for an unknown language or too few posts to measure shift."""
    train, dev, test = (posts[posts["split"] == split] for split in ("train", "dev", "test"))
    texts, splits = posts["text"].tolist(), posts.groupby("id")["split"].nunique()
    repeated = sorted(splits.index[splits > 1])
    spoken = registered(language)
    known, dominant = spoken.scripts, [script for script in dominant_scripts(texts) if script]
    finer = [*card.label_columns, *card.auxiliary.types]
    types = {name: int(train[name].sum()) for name in finer if train[name].notna().any()}
    return Audit.model_validate(
        {
            "language": language,
            "posts_train": len(train),
            "posts_dev": len(dev),
            "posts_test": len(test),
            "positive_train": _largest(train["label"], card),
            "positive_dev": _largest(dev["label"], card) if len(dev) else None,
            "types_train": types,
            **_duplicates(posts),
            "repeated_ids": len(repeated),
            "repeated_id_examples": tuple(repeated[:EXAMPLES]),
            "other_languages": other_languages(texts, spoken, seed),
            "foreign_script": sum(script not in known for script in dominant) if known else 0,
            "secondary_script": sum(script in known[1:] for script in dominant),
            **_odd_texts(texts),
            **_lengths(posts["text"]),
            "shift_auc": shift_auc(train["text"].tolist(), test["text"].tolist(), seed) if len(test) > 1 else None,
        }
    )


def _largest(labels: "pd.Series[int]", card: TaskCard) -> float:
    """The share of positives; of a multiclass task, that of the largest class."""
    return float(labels.value_counts(normalize=True).max() if card.kind == "multiclass" else labels.mean())


def doubt_in_words(others: dict[str, float], language: str) -> str:
    """That too many posts seem to be in `others`, by their shares, and not in `language`; empty if they are not."""
    if sum(others.values()) < MANY_OTHERS:
        return ""
    named = ", ".join(f"{share:.0%} in {registered(code).name}" for code, share in others.items())
    return f"of its posts, {named}, not in {registered(language).name}"


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


def other_languages(texts: list[str], language: Language, seed: int) -> dict[str, float]:
    """Shares of posts in other languages, by code, of at least one in twenty; empty where nothing can be told."""
    if not is_identified(language):
        return {}
    shares = language_shares(texts, seed)
    return {code: round(share, 3) for code, share in shares.items() if code != language.code and share >= _COMMON}


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
