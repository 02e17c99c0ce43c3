"""What a run is compared with: another run post by post, and official test scores of other systems.

Two runs are compared by the difference of their nested out-of-fold macro-F1 with its paired interval. Both decide the
same posts, so most of the luck of the sample is in both and cancels: a paired interval is far narrower than the two
runs' own (Efron & Tibshirani 1993, section 16.4).
"""

import csv
from importlib import resources
from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.decision.decide import language_seed
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.intervals import Interval, mean_interval, paired_interval, paired_resamples
from polar_pipeline.metrics.scores import Floats, macro_f1
from polar_pipeline.settings.profile import Profile

RESAMPLES = 2000
_SEED = 0


class Comparison(NamedTuple):
    """One language in two runs: macro-F1 of each on the posts that both decided, and B less A."""

    language: str
    posts: int
    first: float
    second: float
    difference: Interval
    resamples: Floats  # of the difference


def compare_language(language: str, first: pd.DataFrame, second: pd.DataFrame) -> Comparison:
    """Compare the nested predictions of two runs. Both tables are indexed by split and id, with label and prediction.

    Posts that only one run decided are left out. Raises InputError when no post is shared or their labels differ.
    """
    both = first.merge(second, left_index=True, right_index=True, suffixes=("_a", "_b"))
    if both.empty:
        raise InputError(f"the two runs decided no post of {language} in common: compare runs on the same data.")
    labels, other, a, b = (
        both[name].to_numpy(dtype=int) for name in ("label_a", "label_b", "prediction_a", "prediction_b")
    )
    if (labels != other).any():
        raise InputError(
            f"{int((labels != other).sum())} posts of {language} have other labels in the second run, first "
            f"{both.index[labels != other][0][1]!r}: compare runs on the same data."
        )
    seed = language_seed(_SEED, language)
    return Comparison(
        language,
        len(both),
        macro_f1(labels, a),
        macro_f1(labels, b),
        paired_interval(labels, b, a, RESAMPLES, seed),
        paired_resamples(labels, b, a, RESAMPLES, seed),
    )


def overall(comparisons: list[Comparison]) -> Interval:
    """The mean difference over the languages with its interval."""
    return mean_interval([found.difference.value for found in comparisons], [found.resamples for found in comparisons])


def verdict(difference: Interval) -> str:
    """`B is better`, `A is better`, `the same` when all posts are decided alike, or `not shown to differ`."""
    if difference.low > 0:
        return "B is better"
    if difference.high < 0:
        return "A is better"
    if np.isclose([difference.low, difference.high], 0.0).all():
        return "the same"
    return "not shown to differ"


class Reference(NamedTuple):
    """Official test macro-F1 of one language, from the leaderboard of subtask 1.

    The baseline is the organisers' and is not ranked; in Persian it beat all teams. PSK came second and UTokyo Tsuruoka
    Lab (the winner) first over all languages; `best` is the best ranked team of the language.
    """

    baseline: float
    psk: float
    winner: float
    best: float


def load_reference() -> dict[str, Reference]:
    """Reference figures by language code."""
    text = (resources.files("polar_pipeline.report") / "reference.csv").read_text(encoding="utf-8")
    return {
        row["language"]: Reference(*(float(row[name]) for name in Reference._fields))
        for row in csv.DictReader(text.splitlines())
    }


def comparable_reference(profile: Profile) -> dict[str, Reference]:
    """The reference figures, or none for another task than the default one or for made-up posts."""
    official = profile.data != "bundled" and profile.task == Profile.model_fields["task"].default
    return load_reference() if official else {}
