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
from polar_pipeline.metrics.metric import MACRO_F1, Metric
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.settings.profile import Profile
from polar_pipeline.task.card import TaskCard

RESAMPLES = 2000
_SEED = 0


# the teams in second and first place of each official task, by the name of its card
LEADERS = {
    "polar": ("PSK", "UTokyo Tsuruoka Lab"),
    "polar_types": ("UTokyo Tsuruoka Lab", "SMASH"),
    "polar_manifestations": ("NYCU-NLP", "SMASH"),
}


class Comparison(NamedTuple):
    """One language in two runs: macro-F1 of each on the posts that both decided, and B less A."""

    language: str
    posts: int
    first: float
    second: float
    difference: Interval
    resamples: Floats  # of the difference


def compare_language(language: str, first: pd.DataFrame, second: pd.DataFrame, metric: Metric = MACRO_F1) -> Comparison:
    """Compare the nested predictions of two runs by the task's metric; the tables are those of `nested_targets`.

    Posts that only one run decided are left out. Raises InputError when no post is shared or their labels differ.
    """
    both = first.merge(second, left_index=True, right_index=True, suffixes=("_a", "_b"))
    if both.empty:
        raise InputError(f"the two runs decided no post of {language} in common: compare runs on the same data.")
    labels, a, b = (
        both[name].unstack("target").to_numpy(dtype=int) for name in ("label_a", "prediction_a", "prediction_b")
    )
    differing = both.index.get_level_values("id")[both["label_a"] != both["label_b"]].unique()
    if len(differing):
        raise InputError(
            f"{len(differing)} posts of {language} have other labels in the second run, first "
            f"{differing[0]!r}: compare runs on the same data."
        )
    seed = language_seed(_SEED, language)
    return Comparison(
        language,
        len(labels),
        metric.value(labels, a),
        metric.value(labels, b),
        paired_interval(labels, b, a, RESAMPLES, seed, metric=metric),
        paired_resamples(labels, b, a, RESAMPLES, seed, metric),
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
    """Official test macro-F1 of one language, from the leaderboard of a subtask.

    The baseline is the organisers' and is not ranked; in Persian it beat all teams. The runner-up and the winner are
    those over all languages; `best` is the best ranked team of the language.
    """

    baseline: float
    runner_up: float
    winner: float
    best: float


def load_reference(task: str = "polar") -> dict[str, Reference]:
    """Reference figures of an official task by language code."""
    text = (resources.files("polar_pipeline.report") / "reference.csv").read_text(encoding="utf-8")
    return {
        row["language"]: Reference(*(float(row[name]) for name in Reference._fields))
        for row in csv.DictReader(text.splitlines())
        if row["task"] == task
    }


def comparable_reference(profile: Profile, card: TaskCard) -> dict[str, Reference]:
    """The official figures of this task, or none for tasks of one's own or for made-up posts."""
    official = profile.data != "bundled" and profile.task in LEADERS
    return load_reference(card.name) if official else {}
