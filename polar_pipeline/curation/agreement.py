"""Can the judge be believed? How far plan, judge and a backbone agree about posts, counted on a curated table.

The backbone was trained on real posts alone, and never on the fold of the post that it labels. A judge that agrees with
the plan and not with the backbone may only share the generator's idea of the label (it may be the same model), and not
that of the people who labelled the real posts; or the posts are of a kind that the backbone has not seen.
"""

from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.corpus.posts import REAL
from polar_pipeline.curation.verification import of_planned_label

_EVEN = 0.5  # probability from which the judge counts as saying positive


class Agreement(NamedTuple):
    """How often two raters give the same label. Raters are the plan (or people, of real posts), judge and backbone.

    Only posts that both have labelled count.
    """

    posts: str  # synthetic or real
    one: str
    other: str
    common: int
    share: float
    kappa: float | None  # Cohen's: 0 is chance, 1 is always; None where both give one label alone


def agreements(table: pd.DataFrame) -> list[Agreement]:
    """All pairs on synthetic and on real posts; those that have no post in common are left out.

    Posts that the judge dropped count: among those that it let pass it would always agree.
    """
    found = []
    made = table["source"] != REAL
    for posts, rows in (("synthetic", table[made]), ("real", table[~made & (table["fold"] >= 0)])):
        judge = (rows["judge_probability"] >= _EVEN).astype("Int8").where(rows["judge_probability"].notna())
        said = {"plan" if posts == "synthetic" else "label": rows["label"], "judge": judge}
        said["backbone"] = rows["backbone_label"]
        for (one, first), (other, second) in combinations(said.items(), 2):
            both = (first.notna() & second.notna()).to_numpy(dtype=bool)
            if both.any():
                share, kappa = _agreement(*(side[both].to_numpy(dtype=np.int64) for side in (first, second)))
                found.append(Agreement(posts, one, other, int(both.sum()), share, kappa))
    return found


def judge_figures(table: pd.DataFrame, judged: int) -> dict[str, float]:
    """What the judge said of the `judged` synthetic posts that it was asked about; empty if it was asked nothing.

    `judge_answered`: the share of them that got a number. `judge_probability`: the mean probability of the label that
    was planned. `judge_agreement`: the share whose label is the likelier one.
    """
    if not judged:
        return {}
    rows = table[(table["source"] != REAL) & table["judge_probability"].notna()]
    figures = {"judge_answered": len(rows) / judged}
    if len(rows):
        figures["judge_probability"] = float(of_planned_label(rows["judge_probability"], rows["label"]).mean())
        figures["judge_agreement"] = next(
            one.share for one in agreements(table) if (one.posts, one.one, one.other) == ("synthetic", "plan", "judge")
        )
    return figures


def agreement_rows(found: list[Agreement]) -> list[dict[str, Any]]:
    """The same as rows of plain values: posts, between, count, agreement, kappa."""
    return [
        {
            "posts": one.posts,
            "between": f"{one.one} and {one.other}",
            "count": one.common,
            "agreement": one.share,
            "kappa": one.kappa,
        }
        for one in found
    ]


def _agreement(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> tuple[float, float | None]:
    from sklearn.metrics import cohen_kappa_score

    constant = len(np.unique(np.concatenate([one, other]))) < 2
    return float((one == other).mean()), None if constant else float(cohen_kappa_score(one, other))
