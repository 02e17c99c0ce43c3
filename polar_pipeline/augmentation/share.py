"""The cap on synthetic posts: how many of those that passed curation are trained on."""

import numpy as np
import pandas as pd

from polar_pipeline.corpus.posts import REAL
from polar_pipeline.curation.curate import CONTRAST


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
