"""One language's evidence: what its decision scores, where, how sure that is, and what to be wary of.

Pure: tables and records in, one record out. What does not belong here: drawing and HTML.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from polar_pipeline.decision.ensemble import language_seed
from polar_pipeline.decision.record import Decision, Estimate
from polar_pipeline.metrics.intervals import macro_f1_interval, macro_f1_resamples
from polar_pipeline.metrics.scores import Curve, Floats, Ints, Reliability, macro_f1_curve, reliability
from polar_pipeline.task.profile import ReportSettings

CURVE_POINTS = 200  # more than a small plot can show


class Findings(Protocol):
    """What the report needs of a corpus audit."""

    @property
    def shift_auc(self) -> float:
        """Train-or-test AUC on text alone."""

    @property
    def twins_dev(self) -> int:
        """Train posts that stand in dev too."""

    @property
    def twins_test(self) -> int:
        """Train posts that stand in test too."""

    @property
    def conflicting_groups(self) -> int:
        """Groups of equal train posts with different labels."""


@dataclass(frozen=True)
class LanguageEvidence:
    """Everything that the page shows of one language."""

    language: str
    posts: dict[str, int]  # per split
    positives: float  # share among the labelled posts
    predicted_positives: float  # share among the test posts
    out_of_fold: Estimate  # nested, from the decision
    resamples: Floats  # of the nested out-of-fold macro-F1, for the mean over languages
    dev: Estimate | None
    test: Estimate | None
    curve: Curve
    diagram: Reliability
    decision: Decision
    shift_auc: float
    twins: int
    conflicts: int


def language_evidence(
    posts: pd.DataFrame,
    predictions: pd.DataFrame,
    decision: Decision,
    audit: Findings,
    test_labels: "pd.Series[int] | None",
    settings: ReportSettings,
    seed: int,
) -> LanguageEvidence:
    """Measure one language.

    `posts` and `predictions` have the same rows (split, id); `test_labels` is indexed by id, or None where nobody has any.
    """
    table = posts[["split", "id", "label"]].merge(predictions, on=["split", "id"], how="left", validate="one_to_one")
    held_out = table[(table["fold"] >= 0) & table["label"].notna()]
    labels, probabilities = _int(held_out["label"]), held_out["probability"].to_numpy(dtype=float)
    test = table[table["split"] == "test"]
    return LanguageEvidence(
        language=decision.language,
        posts={str(split): int(count) for split, count in table["split"].value_counts(sort=False).items()},
        positives=float(table["label"].dropna().mean()),
        predicted_positives=float(test["prediction"].mean()) if len(test) else float("nan"),
        out_of_fold=decision.out_of_fold,
        resamples=macro_f1_resamples(decision.confusion, settings.resamples, language_seed(seed, decision.language)),
        dev=_estimate(table[table["split"] == "dev"], settings, seed),
        test=_estimate(test.assign(label=test["id"].map(test_labels)), settings, seed)
        if test_labels is not None
        else None,
        curve=thin(macro_f1_curve(labels, probabilities)),
        diagram=reliability(labels, probabilities),
        decision=decision,
        shift_auc=audit.shift_auc,
        twins=audit.twins_dev + audit.twins_test,
        conflicts=audit.conflicting_groups,
    )


def thin(curve: Curve) -> Curve:
    """At most `CURVE_POINTS` points of a curve over probabilities; the infinite ends become 0 and 1."""
    keep = np.unique(np.linspace(0, len(curve.thresholds) - 1, CURVE_POINTS).round().astype(int))
    return Curve(np.clip(curve.thresholds[keep], 0.0, 1.0), curve.values[keep])


def _estimate(rows: pd.DataFrame, settings: ReportSettings, seed: int) -> Estimate | None:
    known = rows[rows["label"].notna()]
    if known.empty:
        return None
    interval = macro_f1_interval(_int(known["label"]), _int(known["prediction"]), settings.resamples, seed)
    return Estimate(value=interval.value, low=interval.low, high=interval.high, posts=len(known))


def _int(column: "pd.Series[int]") -> Ints:
    values: Ints = column.to_numpy(dtype=np.int64)
    return values
