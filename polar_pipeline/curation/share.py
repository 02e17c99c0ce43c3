"""How many of the synthetic posts that pass are trained on: a share, of all sources and labels alike, pairs whole.

What does not belong here: which posts pass.
"""

import numpy as np
import pandas as pd

from polar_pipeline.corpus.posts import REAL
from polar_pipeline.curation.pairs import CONTRAST


def capped(table: pd.DataFrame, share: float) -> pd.DataFrame:
    """The curated table with at most this share of synthetic posts among those trained on, of all sources and labels alike.

    Pairs stay together. What a smaller share keeps, a larger one keeps too.
    """
    made = (table["source"] != REAL).to_numpy(dtype=bool)
    trained = int((~made & (table["fold"] >= 0).to_numpy() & table["keep"].to_numpy(dtype=bool)).sum())
    kept = table[made & table["keep"].to_numpy(dtype=bool)]
    order = _evenly(kept)
    surplus = order[_whole_pairs(kept.loc[order], _allowed(trained, share)) :]
    stage, reason, keep = (table[name].copy() for name in ("stage", "reason", "keep"))
    stage[surplus], reason[surplus], keep[surplus] = "share", f"more than {share:.0%} synthetic posts", False
    return table.assign(keep=keep, stage=stage, reason=reason)


def _evenly(kept: pd.DataFrame) -> "pd.Index[int]":
    """Rows in such an order that any first part has sources and labels in about the shares that the whole has, pairs side by side."""
    paired = kept["source"] == CONTRAST
    units = kept["parent_id"].where(paired, kept["id"])
    strata = kept["source"] + kept["label"].astype(str).where(~paired, "")
    first = pd.DataFrame({"unit": units, "stratum": strata}).drop_duplicates("unit")
    groups = first.groupby("stratum")["unit"]
    places = (groups.cumcount() + 0.5) / groups.transform("size")
    return kept.index[np.argsort(units.map(dict(zip(first["unit"], places, strict=True))), kind="stable")]


def _allowed(real: int, share: float) -> int:
    """The most synthetic posts beside so many real ones; a share that a number of posts had gives that number again."""
    return int(real * share / (1 - share) + 1e-6)


def _whole_pairs(ordered: pd.DataFrame, allowed: int) -> int:
    """How many of the rows may be kept: as many as allowed, one less where that would part a pair."""
    if not 0 < allowed < len(ordered):
        return min(max(allowed, 0), len(ordered))
    last, following = ordered.iloc[allowed - 1], ordered.iloc[allowed]
    parts = last["source"] == CONTRAST == following["source"] and last["parent_id"] == following["parent_id"]
    return allowed - int(parts)
