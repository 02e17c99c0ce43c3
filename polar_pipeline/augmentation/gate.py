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
from polar_pipeline.curation.curate import CONTRAST, SHARE, for_backbones
from polar_pipeline.decision.selection import held_out_predictions, nested_fits
from polar_pipeline.decision.strategies import gather
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


class Evaluation(NamedTuple):
    """What every share did, and the labels that the backbone gave while it was trained on real posts alone.

    `labels` (Int8) is by the names of the curated table's rows: a label of each post in a fold by a model that has not
    seen the fold, missing for other posts and for synthetic ones that fell before the judge.
    """

    results: list[ShareResult]
    labels: "pd.Series[int]"


class Gate(NamedTuple):
    """The share that helps beyond the error, 0 when none does, and the evaluation that says so (None without one)."""

    share: float
    evaluation: Evaluation | None = None

    @property
    def results(self) -> list[ShareResult]:
        """What every share did."""
        return self.evaluation.results if self.evaluation else []


def gate(
    curated: pd.DataFrame, language: str, card: TaskCard, profile: Profile, backbone: Backbone | None = None
) -> Gate:
    """Choose a share for the curated table, by the linear backbone unless another one is given.

    Shares above the profile's are measured too, but not chosen.
    """
    own = next((entry for entry in profile.backbones if isinstance(entry, LinearSettings)), LinearSettings())
    with tempfile.TemporaryDirectory() as folder:
        backbone = backbone or make_backbone(own, profile, card, Home(Path(folder)))
        evaluation = evaluate_shares(curated, language, profile, backbone)
    most = profile.curation.of(language).share
    return Gate(helpful_share([result for result in evaluation.results if result.asked <= most]), evaluation)


def evaluate_shares(curated: pd.DataFrame, language: str, profile: Profile, backbone: Backbone) -> Evaluation:
    """One result per share that there are enough posts for, the first without synthetic posts."""
    first = _predict(_only_scored(curated), language, profile, backbone)
    real = (first.table["source"] == REAL).to_numpy(dtype=bool)
    labels, without = first.labels[real], first.predictions[real]
    nothing = compare(labels, without, without, profile.seed)
    results = [ShareResult(0.0, 0.0, 0, macro_f1(labels, without), nothing)]
    for asked in SHARES[1:]:
        table = for_backbones(cap_share(curated, asked))
        trained = table[table["keep"] & (table["fold"] >= 0)]
        made = int((trained["source"] != REAL).sum())
        if made == results[-1].posts:
            continue  # there are no more posts
        found = _predict(table, language, profile, backbone)
        difference = compare(labels, found.predictions, without, profile.seed)
        results.append(ShareResult(asked, made / len(trained), made, macro_f1(labels, found.predictions), difference))
    given = pd.Series(first.predictions, index=first.table.index).reindex(curated.index).astype("Int8")
    return Evaluation(results, given)


def with_labels(table: pd.DataFrame, decided: Gate) -> pd.DataFrame:
    """The curated table with the labels that the backbone gave, where there was an evaluation."""
    return table.assign(backbone_label=decided.evaluation.labels) if decided.evaluation else table


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
    stage[surplus], reason[surplus], keep[surplus] = SHARE, f"more than {share:.0%} synthetic posts", False
    return table.assign(keep=keep, stage=stage, reason=reason)


def _only_scored(curated: pd.DataFrame) -> pd.DataFrame:
    """The real posts, and the synthetic ones that came as far as the judge, none of which may be fitted on.

    All of the latter count, because those that the judge let pass are not all that it has judged.
    """
    made = curated["source"] != REAL
    reached = made & (curated["keep"].astype(bool) | curated["judge_probability"].notna())
    return curated[~made | reached].assign(keep=curated["keep"].astype(bool) & ~made)


class _Predicted(NamedTuple):
    """Rows of a table that are in folds, and their labels and predictions, both 0/1 (rows,)."""

    table: pd.DataFrame
    labels: Ints
    predictions: Ints


def _predict(table: pd.DataFrame, language: str, profile: Profile, backbone: Backbone) -> _Predicted:
    """Nested predictions of the real posts in folds, and of the synthetic ones that may not be fitted on.

    A backbone scores real posts: so those synthetic ones are given to it as real posts that it may not fit on either,
    which the model scores that holds their fold out. Everything that is learned is learned from real posts.
    """
    scored = (table["source"] == REAL) | ~table["keep"].astype(bool)
    given = table.assign(source=table["source"].where(~scored, REAL)).reset_index(drop=True)
    scores = backbone.score(language, backbone.train(language, given, Progress()), given)
    inside = table[scored & (table["fold"] >= 0)]
    members = gather(inside, scores, [backbone.name], language)
    labels, folds = (inside[name].to_numpy(dtype=np.int64) for name in ("label", "fold"))
    real = (inside["source"] == REAL).to_numpy(dtype=bool)
    settings = profile.decision.model_copy(update={"departures": False})
    fits = nested_fits(labels[real], folds[real], [one.rows(real) for one in members], settings, profile.seed)
    return _Predicted(inside, labels, held_out_predictions(folds, members, fits))


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
