"""Do synthetic posts help? The cheapest backbone with and without them, on the same folds, judged on the same real posts.

Held-out posts are real ones only, and a synthetic post leaves with the fold that it was made from, so the difference is what the
posts teach. What does not belong here: making or filtering them.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.backbones.base import Backbone, Progress
from polar_pipeline.corpus.posts import REAL
from polar_pipeline.curation.curate import for_backbones
from polar_pipeline.curation.share import capped
from polar_pipeline.decision.members import MemberScores
from polar_pipeline.decision.selection import nested_predictions
from polar_pipeline.metrics.intervals import Interval, paired_interval
from polar_pipeline.metrics.scores import Ints, macro_f1
from polar_pipeline.settings.profile import Profile
from polar_pipeline.task.card import TaskCard

SHARES = (0.0, 0.1, 0.2, 0.3, 0.5)
# the best of four is taken, so each interval is wider, that all of them may hold together at 95% (Bonferroni)
_LEVEL = 1 - 0.05 / (len(SHARES) - 1)
_RESAMPLES = 4000


class ShareResult(NamedTuple):
    """Training with this share of synthetic posts: how many they are, nested macro-F1, and the difference to none.

    The interval of the difference holds for all shares of a language together. `share` is the one reached; where posts run out it is below the one `asked` for.
    """

    asked: float
    share: float
    posts: int
    macro_f1: float
    difference: Interval


def evaluate_shares(
    curated: pd.DataFrame, language: str, card: TaskCard, profile: Profile, backbone: Backbone
) -> list[ShareResult]:
    """One result per share that there are posts for, none first. `curated` is what `curate` returned."""
    results: list[ShareResult] = []
    without: Ints = np.zeros(0, dtype=np.int64)
    for asked in SHARES:
        table = for_backbones(capped(curated, asked))
        trained = table[table["keep"] & (table["fold"] >= 0)]
        made = int((trained["source"] != REAL).sum())
        if results and made == results[-1].posts:
            continue  # there are no more, or too few real posts for another one
        labels, predictions = _decided(table, language, card, profile, backbone)
        without = predictions if not results else without
        difference = compared(labels, predictions, without, profile.seed)
        results.append(ShareResult(asked, made / len(trained), made, macro_f1(labels, predictions), difference))
    return results


def compared(labels: Ints, predictions: Ints, without: Ints, seed: int) -> Interval:
    """What training with a share changes, 0/1 arrays (posts,), in an interval that holds for all shares of a language together."""
    return paired_interval(labels, predictions, without, _RESAMPLES, seed, _LEVEL)


def helpful_share(results: list[ShareResult]) -> float:
    """The share with the highest macro-F1 among those that help beyond the error; 0 when none does."""
    helping = [result for result in results if result.difference.low > 0]
    return max(helping, key=lambda result: result.macro_f1).share if helping else 0.0


def _decided(
    table: pd.DataFrame, language: str, card: TaskCard, profile: Profile, backbone: Backbone
) -> tuple[Ints, Ints]:
    """Labels and nested predictions of the real posts in folds."""
    with tempfile.TemporaryDirectory() as folder:
        ref = backbone.train(language, table, card, Path(folder), Progress())
        scores = backbone.score(language, ref, table, card, Path(folder))
    real = table[table["source"] == REAL].reset_index(drop=True)
    inside = (real["fold"] >= 0).to_numpy(dtype=bool)
    labels, folds = (real.loc[inside, name].to_numpy(dtype=np.int64) for name in ("label", "fold"))
    member = MemberScores(backbone.name, (0,), scores["logit"].to_numpy(dtype=float)[inside, None])
    settings = profile.decision.model_copy(update={"departures": False})
    return labels, nested_predictions(labels, folds, [member], settings, profile.seed)
