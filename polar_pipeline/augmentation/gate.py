"""The gate: which share of synthetic posts a language trains with, by what they do for the cheapest backbone.

Every share is judged on the same real posts and folds. A synthetic post leaves with the fold that it was made from.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.backbones.base import Backbone, Progress
from polar_pipeline.backbones.factory import make_backbone
from polar_pipeline.corpus.posts import REAL
from polar_pipeline.curation.curate import CONTRAST, for_backbones
from polar_pipeline.decision.selection import nested_predictions
from polar_pipeline.decision.strategies import MemberScores
from polar_pipeline.metrics.intervals import Interval, paired_interval
from polar_pipeline.metrics.scores import Ints, macro_f1
from polar_pipeline.settings.backbones import LinearSettings
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.home import Home
from polar_pipeline.task.card import TaskCard

SHARES = (0.0, 0.1, 0.2, 0.3, 0.5)
# the best of four is taken, so each interval is wider, that all of them together hold at 95% (Bonferroni)
_LEVEL = 1 - 0.05 / (len(SHARES) - 1)
_RESAMPLES = 4000


class ShareResult(NamedTuple):
    """What training with a share of synthetic posts does. Where posts run out, `share` is below the one `asked` for."""

    asked: float
    share: float
    posts: int
    macro_f1: float  # nested, on the real posts
    difference: Interval  # to training without any; holds for all shares of a language together


class Gate(NamedTuple):
    """The share that helps beyond the error, 0 when none does, and what every share did."""

    share: float
    results: list[ShareResult]


def gate(curated: pd.DataFrame, language: str, card: TaskCard, profile: Profile) -> Gate:
    """Choose a share for the curated table. Shares above the profile's are measured too, but not chosen."""
    own = next((entry for entry in profile.backbones if isinstance(entry, LinearSettings)), LinearSettings())
    with tempfile.TemporaryDirectory() as folder:
        backbone = make_backbone(own, profile, card, Home(Path(folder)))
        results = evaluate_shares(curated, language, profile, backbone)
    most = profile.curation.of(language).share
    return Gate(helpful_share([result for result in results if result.asked <= most]), results)


def evaluate_shares(curated: pd.DataFrame, language: str, profile: Profile, backbone: Backbone) -> list[ShareResult]:
    """One result per share that there are enough posts for, the first without synthetic posts."""
    results: list[ShareResult] = []
    without: Ints = np.zeros(0, dtype=np.int64)
    for asked in SHARES:
        table = for_backbones(cap_share(curated, asked))
        trained = table[table["keep"] & (table["fold"] >= 0)]
        made = int((trained["source"] != REAL).sum())
        if results and made == results[-1].posts:
            continue  # there are no more posts
        labels, predictions = _predict(table, language, profile, backbone)
        without = without if results else predictions
        difference = compare(labels, predictions, without, profile.seed)
        results.append(ShareResult(asked, made / len(trained), made, macro_f1(labels, predictions), difference))
    return results


def compare(labels: Ints, predictions: Ints, without: Ints, seed: int) -> Interval:
    """Difference in macro-F1 of two predictions, 0/1 (posts,), with an interval for the best of all shares."""
    return paired_interval(labels, predictions, without, _RESAMPLES, seed, _LEVEL)


def helpful_share(results: list[ShareResult]) -> float:
    """The share with the highest macro-F1 among those that help beyond the error; 0 when none does."""
    helping = [result for result in results if result.difference.low > 0]
    return max(helping, key=lambda result: result.macro_f1).share if helping else 0.0


def cap_share(table: pd.DataFrame, share: float) -> pd.DataFrame:
    """The curated table with at most this share (0 to 1) of synthetic posts among those trained on.

    Sources and labels keep their proportions, and pairs stay whole. A larger share keeps all that a smaller one keeps.
    """
    made = (table["source"] != REAL).to_numpy(dtype=bool)
    trained = int((~made & (table["fold"] >= 0).to_numpy() & table["keep"].to_numpy(dtype=bool)).sum())
    kept = table[made & table["keep"].to_numpy(dtype=bool)]
    order = _mixed_order(kept)
    # rounding: the share that a number of posts makes gives that number again
    allowed = int(trained * share / (1 - share) + 1e-6)
    surplus = order[_whole_pairs(kept.loc[order], allowed) :]
    stage, reason, keep = (table[name].copy() for name in ("stage", "reason", "keep"))
    stage[surplus], reason[surplus], keep[surplus] = "share", f"more than {share:.0%} synthetic posts", False
    return table.assign(keep=keep, stage=stage, reason=reason)


def _predict(table: pd.DataFrame, language: str, profile: Profile, backbone: Backbone) -> tuple[Ints, Ints]:
    """Labels and nested predictions of the real posts in folds."""
    scores = backbone.score(language, backbone.train(language, table, Progress()), table)
    real = table[table["source"] == REAL].reset_index(drop=True)
    inside = (real["fold"] >= 0).to_numpy(dtype=bool)
    labels, folds = (real.loc[inside, name].to_numpy(dtype=np.int64) for name in ("label", "fold"))
    member = MemberScores(backbone.name, (0,), scores["logit"].to_numpy(dtype=float)[inside, None])
    settings = profile.decision.model_copy(update={"departures": False})
    return labels, nested_predictions(labels, folds, [member], settings, profile.seed)


def _mixed_order(kept: pd.DataFrame) -> "pd.Index[int]":
    """Rows so ordered that any first part has about the whole's shares of sources and labels, pairs side by side."""
    paired = kept["source"] == CONTRAST
    units = kept["parent_id"].where(paired, kept["id"])
    strata = kept["source"] + kept["label"].astype(str).where(~paired, "")
    first = pd.DataFrame({"unit": units, "stratum": strata}).drop_duplicates("unit")
    groups = first.groupby("stratum")["unit"]
    places = (groups.cumcount() + 0.5) / groups.transform("size")
    return kept.index[np.argsort(units.map(dict(zip(first["unit"], places, strict=True))), kind="stable")]


def _whole_pairs(ordered: pd.DataFrame, allowed: int) -> int:
    """How many of the rows may be kept: as many as allowed, or one less where that would split a pair."""
    if not 0 < allowed < len(ordered):
        return min(max(allowed, 0), len(ordered))
    last, following = ordered.iloc[allowed - 1], ordered.iloc[allowed]
    splits = last["source"] == CONTRAST == following["source"] and last["parent_id"] == following["parent_id"]
    return allowed - int(splits)
