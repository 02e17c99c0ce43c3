"""Real and synthetic posts into one table in which every row says whether it is kept, and if not, which stage objected and why.

Columns: those of the posts table, `keep` (bool), `stage` and `reason` (text, "" where kept), `similar_to` (id, "" where nothing
is near) and `similarity`. Real posts are always kept, contradictory ones too unless the settings say otherwise.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polar_pipeline.corpus.duplicates import duplicate_groups, normalise
from polar_pipeline.corpus.posts import REAL as REAL
from polar_pipeline.curation.cleaning import clean_replies
from polar_pipeline.curation.dedup import duplicates
from polar_pipeline.curation.embedding import Embedder
from polar_pipeline.curation.filters import Objection, objections, reference
from polar_pipeline.curation.overlap import share_of_words, word_copies
from polar_pipeline.task.languages import language as registered
from polar_pipeline.task.synthesis import CurationSettings

VERDICT = ["keep", "stage", "reason", "similar_to", "similarity"]
STAGES = ["empty", "length", "language", "meta", "markup", "truncated", "duplicate", "round_trip", "judge"]
STAGES += ["share", "contradiction"]

Mask = NDArray[np.bool_]


class _Verdicts:
    """What is said of each row; the first objection counts."""

    def __init__(self, rows: int) -> None:
        self.stage, self.reason, self.similar_to = ([""] * rows for _ in range(3))
        self.similarity = np.zeros(rows)

    @property
    def keep(self) -> Mask:
        return np.array([not stage for stage in self.stage], dtype=bool)

    def object(self, row: int, stage: str, reason: str) -> None:
        """Note an objection to a row that has none yet."""
        self.stage[row], self.reason[row] = stage, reason


def curate(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    language: str,
    settings: CurationSettings,
    embedder: Embedder,
    look_again: "Callable[[pd.DataFrame], list[Objection | None]] | None" = None,
) -> pd.DataFrame:
    """`real` and `synthetic` are posts tables. Rows come back in their order, real ones first, synthetic texts cleaned.

    `look_again`, where given, gets the synthetic posts that no other stage objects to, and may object.
    """
    cleaned = synthetic.reset_index(drop=True)
    texts = clean_replies(cleaned["text"].tolist(), cleaned["request"].fillna("").tolist())
    cleaned = cleaned.assign(text=pd.Series(texts, dtype="str"))
    table = pd.concat([real, cleaned], ignore_index=True) if len(cleaned) else real.reset_index(drop=True)
    made = (table["source"] != REAL).to_numpy(dtype=bool)
    verdicts = _Verdicts(len(table))
    if made.any():
        _filter(table, made, language, verdicts)
        _deduplicate(table, made, settings.near_duplicate, embedder, verdicts)
        rows = np.flatnonzero(made & verdicts.keep)
        if look_again and len(rows):
            for row, objection in zip(rows, look_again(table.iloc[rows]), strict=True):
                if objection:
                    verdicts.object(int(row), objection.stage, objection.reason)
    if settings.contradictions == "drop":
        _drop_contradictions(table, made, verdicts)
    return table.assign(
        keep=verdicts.keep,
        stage=pd.Series(verdicts.stage, dtype="str"),
        reason=pd.Series(verdicts.reason, dtype="str"),
        similar_to=pd.Series(verdicts.similar_to, dtype="str"),
        similarity=verdicts.similarity,
    )


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


def for_backbones(table: pd.DataFrame) -> pd.DataFrame:
    """The posts table that backbones get: all real rows, which they score, and the synthetic ones that are kept.

    `keep` says which rows they may fit on; the rest of the verdict is left out.
    """
    rows = table[table["keep"] | (table["source"] == REAL)]
    return rows.drop(columns=[name for name in VERDICT if name != "keep"]).reset_index(drop=True)


def _evenly(kept: pd.DataFrame) -> "pd.Index[int]":
    """Rows in such an order that any first part has sources and labels in about the shares that the whole has, pairs side by side."""
    paired = kept["source"] == "contrast"
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
    parts = last["source"] == "contrast" == following["source"] and last["parent_id"] == following["parent_id"]
    return allowed - int(parts)


def _filter(table: pd.DataFrame, made: Mask, language: str, verdicts: _Verdicts) -> None:
    training = table.loc[~made & (table["split"] == "train").to_numpy(), "text"].tolist()
    found = objections(table.loc[made, "text"].tolist(), reference(registered(language), training))
    for row, objection in zip(np.flatnonzero(made), found, strict=True):
        if objection:
            verdicts.object(int(row), objection.stage, objection.reason)


def _deduplicate(table: pd.DataFrame, made: Mask, threshold: float, embedder: Embedder, verdicts: _Verdicts) -> None:
    """Against all real posts, dev and test too: a copy of a test post is leakage. Then synthetic posts among themselves."""
    rows = np.flatnonzero(verdicts.keep)
    texts = table["text"].iloc[rows].tolist()
    keys, protected = [normalise(text) for text in texts], int((~made[rows]).sum())
    found = duplicates(keys, embedder.embed(texts), threshold, protected)
    shared = word_copies(texts, share_of_words(threshold), protected)
    like = np.where(found.like >= 0, found.like, shared.like)
    similarity = np.where(found.like >= 0, found.similarity, shared.similarity)
    ids, splits = table["id"].to_numpy(), table["split"].to_numpy()
    for place in np.flatnonzero(like >= 0):
        row, other = int(rows[place]), int(rows[like[place]])
        what = "a synthetic post" if made[other] else f"a real post of {splits[other]}"
        verdicts.object(row, "duplicate", f"like {what}")
        verdicts.similar_to[row], verdicts.similarity[row] = str(ids[other]), float(similarity[place])


def _drop_contradictions(table: pd.DataFrame, made: Mask, verdicts: _Verdicts) -> None:
    training = table[~made & (table["fold"] >= 0).to_numpy()]
    groups = pd.Series(duplicate_groups(training), index=training.index)
    disagree = training["label"].groupby(groups).transform("nunique").to_numpy(dtype=int) > 1
    for row in np.flatnonzero(~made & (table["fold"] >= 0).to_numpy())[disagree]:
        verdicts.object(int(row), "contradiction", "the same text has the other label too")
