"""Real and synthetic posts into one table in which every row says whether it is kept, and if not, which stage objected and why.

Columns: those of the posts table, `keep` (bool), `stage` and `reason` (text, "" where kept), `similar_to` (id of a row that
deduplication keeps, "" where none is near) and `similarity`. Both halves of a contrastive pair are kept, or none. Real posts are always kept, contradictory ones too unless the settings say otherwise.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polar_pipeline.corpus.posts import REAL
from polar_pipeline.corpus.text import duplicate_groups, normalise
from polar_pipeline.curation.cleaning import clean_replies
from polar_pipeline.curation.dedup import COSINE, TEXT, WORDS, duplicates
from polar_pipeline.curation.embedding import Embedder
from polar_pipeline.curation.filters import Objection, Reference, objections, reference
from polar_pipeline.curation.overlap import share_of_words, word_indices
from polar_pipeline.curation.pairs import pair_numbers, same_text, side_by_side, widowed
from polar_pipeline.metrics.scores import Ints
from polar_pipeline.settings.curation import CurationSettings
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.languages import language as registered

VERDICT = ["keep", "stage", "reason", "similar_to", "similarity"]
STAGES = ["empty", "leakage", "length", "language", "meta", "markup", "truncated", "duplicate", "round_trip", "judge"]
STAGES += ["pair", "share", "contradiction"]
_LIKE = {TEXT: "the same text as", COSINE: "by cosine like", WORDS: "by its words like"}

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

    def part(self, pairs: Ints) -> None:
        """Object to the other halves of pairs that lost one."""
        lost = {int(pairs[row]): stage for row, stage in enumerate(self.stage) if stage and pairs[row] >= 0}
        for row in widowed(pairs, self.keep):
            self.object(int(row), "pair", f"its other half did not pass {lost[int(pairs[row])]}")


def curate(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    language: str,
    card: TaskCard,
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
    pairs, verdicts = pair_numbers(table), _Verdicts(len(table))
    if made.any():
        training = table.loc[~made & (table["split"] == "train").to_numpy(), "text"].tolist()
        _filter(table, made, reference(registered(language), training, card.label), synthetic, verdicts)
        _pair(table, pairs, verdicts)
        _deduplicate(table, made, pairs, settings.near_duplicate, embedder, verdicts)
        rows = np.flatnonzero(made & verdicts.keep)
        if look_again and len(rows):
            for row, objection in zip(rows, look_again(table.iloc[rows]), strict=True):
                if objection:
                    verdicts.object(int(row), objection.stage, objection.reason)
            verdicts.part(pairs)
    if settings.contradictions == "drop":
        _drop_contradictions(table, made, verdicts)
    return table.assign(
        keep=verdicts.keep,
        stage=pd.Series(verdicts.stage, dtype="str"),
        reason=pd.Series(verdicts.reason, dtype="str"),
        similar_to=pd.Series(verdicts.similar_to, dtype="str"),
        similarity=verdicts.similarity,
    )


def for_backbones(table: pd.DataFrame) -> pd.DataFrame:
    """The posts table that backbones get: all real rows, which they score, and the synthetic ones that are kept.

    `keep` says which rows they may fit on; the rest of the verdict is left out.
    """
    rows = table[table["keep"] | (table["source"] == REAL)]
    return rows.drop(columns=[name for name in VERDICT if name != "keep"]).reset_index(drop=True)


def _filter(table: pd.DataFrame, made: Mask, real: Reference, synthetic: pd.DataFrame, verdicts: _Verdicts) -> None:
    found = objections(table.loc[made, "text"].tolist(), real, synthetic["text"].tolist())
    for row, objection in zip(np.flatnonzero(made), found, strict=True):
        if objection:
            verdicts.object(int(row), objection.stage, objection.reason)


def _pair(table: pd.DataFrame, pairs: Ints, verdicts: _Verdicts) -> None:
    """Whole pairs of two texts go on: deduplication is to compare nothing with a half that falls later."""
    verdicts.part(pairs)
    for row in same_text(
        pairs, [normalise(text) if pair >= 0 else "" for text, pair in zip(table["text"], pairs, strict=True)]
    ):
        if not verdicts.stage[row]:
            verdicts.object(int(row), "pair", "both halves are the same text")


def _deduplicate(
    table: pd.DataFrame, made: Mask, pairs: Ints, threshold: float, embedder: Embedder, verdicts: _Verdicts
) -> None:
    """Against all real posts, dev and test too: a copy of a test post is leakage. Then synthetic posts among themselves."""
    rows = side_by_side(np.flatnonzero(verdicts.keep), pairs)
    texts = table["text"].iloc[rows].tolist()
    keys, share, protected = [normalise(text) for text in texts], share_of_words(threshold), int((~made[rows]).sum())
    vectors, words = embedder.embed(texts), word_indices(texts, share)
    found = duplicates(keys, vectors, threshold, protected, words, pairs[rows])
    ids, splits = table["id"].to_numpy(), table["split"].to_numpy()
    for place in np.flatnonzero(found.like >= 0):
        row, other = int(rows[place]), int(rows[found.like[place]])
        what = "a synthetic post" if made[other] else f"a real post of {splits[other]}"
        verdicts.object(row, "duplicate", f"{_LIKE[found.measure[place]]} {what}")
        verdicts.similar_to[row], verdicts.similarity[row] = str(ids[other]), float(found.similarity[place])
    verdicts.part(pairs)


def _drop_contradictions(table: pd.DataFrame, made: Mask, verdicts: _Verdicts) -> None:
    training = table[~made & (table["fold"] >= 0).to_numpy()]
    groups = pd.Series(duplicate_groups(training), index=training.index)
    disagree = training["label"].groupby(groups).transform("nunique").to_numpy(dtype=int) > 1
    for row in np.flatnonzero(~made & (table["fold"] >= 0).to_numpy())[disagree]:
        verdicts.object(int(row), "contradiction", "the same text has the other label too")
