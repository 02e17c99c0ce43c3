"""Real and synthetic posts in one table, whose rows say whether they are kept or else which stage objected and why.

Columns: those of the posts table, `keep` (bool), `stage` and `reason` (text, "" where kept), `similar_to` (id of the
earlier row that it is like, "" where there is none), `similarity` (float), `judge_probability` (float, that the post is
positive, NaN where the judge gave none) and `backbone_label` (Int8, of a backbone that has not seen the post, missing
until the gate fills it in). Both halves of a contrastive pair are kept, or none. Real posts are always kept, except
contradictory ones where the settings say so.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polar_pipeline.corpus.folds import training_rows
from polar_pipeline.corpus.identification import CLD3, Identifier
from polar_pipeline.corpus.language_model import fasttext_identifier
from polar_pipeline.corpus.posts import REAL
from polar_pipeline.corpus.text import duplicate_groups, normalise
from polar_pipeline.curation.cleaning import clean_replies
from polar_pipeline.curation.dedup import COSINE, TEXT, WORDS, duplicates, share_of_words, word_indices
from polar_pipeline.curation.embedding import Embedder, make_embedder
from polar_pipeline.curation.quality_filter import Objection, QualityFilter
from polar_pipeline.curation.verification import Verifier
from polar_pipeline.endpoint.client import Endpoint, Say
from polar_pipeline.endpoint.ledger import CallSummary
from polar_pipeline.metrics.scores import Ints
from polar_pipeline.settings.curation import CurationSettings
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.home import Home
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.languages import language as registered

CONTRAST = "contrast"  # the source of the two posts of a pair, which share a `parent_id`
VERDICT = ["keep", "stage", "reason", "similar_to", "similarity", "judge_probability", "backbone_label"]
STAGES = ["empty", "leakage", "length", "language", "meta", "markup", "truncated", "duplicate", "round_trip", "judge"]
SHARE = "share"  # the stage of posts that are more than a language trains on
STAGES += ["pair", SHARE, "contradiction"]
_LIKE = {TEXT: "the same text as", COSINE: "by cosine like", WORDS: "by its words like"}

Verify = Callable[[pd.DataFrame], list[Objection | None]]


class Curated(NamedTuple):
    """The table, and what verification and embeddings cost and found."""

    table: pd.DataFrame
    calls: CallSummary
    stopped: str  # what ended the verification before all posts were verified; "" when nothing did
    judged: int  # synthetic posts that the judge was asked about

    @property
    def usable(self) -> int:
        """Synthetic posts that no stage objects to."""
        return int((self.table["keep"] & (self.table["source"] != REAL)).sum())


def curate_by_profile(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    language: str,
    card: TaskCard,
    profile: Profile,
    home: Home,
    say: Say,
    language_model: Path | None = None,
) -> Curated:
    """`curate` with all that the profile asks for. `real` and `synthetic` are posts tables.

    `language_model` is the file of `curation.language_model`. Raises InputError if it cannot be used.
    """
    endpoint = Endpoint(registered(language), profile.synthesis, home.ledgers, say)
    embedder = make_embedder(profile.curation.embedder, home.embeddings, home.bases, endpoint)
    verifier = Verifier(card, profile.curation, embedder, endpoint)
    identifier = fasttext_identifier(language_model) if language_model else CLD3
    table = curate(real, synthetic, language, card, profile.curation, embedder, verifier, identifier)
    if verifier.judged:
        given = pd.concat([verifier.probabilities, verifier.judge_real(table)])
        table = table.assign(judge_probability=given.reindex(table.index))
    if verifier.stopped:
        say(f"{language}: {verifier.stopped}; not all posts were verified")
    return Curated(table, verifier.calls.plus(embedder.calls), verifier.stopped, verifier.judged)


def curate(
    real: pd.DataFrame,
    synthetic: pd.DataFrame,
    language: str,
    card: TaskCard,
    settings: CurationSettings,
    embedder: Embedder,
    verify: Verify | None = None,
    identifier: Identifier = CLD3,
) -> pd.DataFrame:
    """The curated table: rows of `real` and `synthetic` (posts tables) in their order, synthetic texts cleaned.

    `verify` gets the synthetic posts that no other stage objects to.
    """
    cleaned = synthetic.reset_index(drop=True)
    texts = clean_replies(cleaned["text"].tolist(), cleaned["request"].fillna("").tolist())
    cleaned = cleaned.assign(text=pd.Series(texts, dtype="str"))
    table = pd.concat([real, cleaned], ignore_index=True) if len(cleaned) else real.reset_index(drop=True)
    curation = _Curation(table)
    if curation.made.any():
        training = table.loc[~curation.made & (table["split"] == "train").to_numpy(), "text"].tolist()
        quality = QualityFilter(registered(language), training, card.label, identifier)
        found = quality.objections(table.loc[curation.made, "text"].tolist(), synthetic["text"].tolist())
        curation.object_all(np.flatnonzero(curation.made), found)
        curation.drop_identical_halves()  # before deduplication compares others with a half that would fall later
        curation.deduplicate(settings.near_duplicate, embedder)
        rows = np.flatnonzero(curation.made & curation.keep)
        if verify and len(rows):
            curation.object_all(rows, verify(table.iloc[rows]))
    if settings.contradictions == "drop":
        curation.drop_contradictions()
    return table.assign(
        keep=curation.keep,
        stage=pd.Series(curation.stage, dtype="str"),
        reason=pd.Series(curation.reason, dtype="str"),
        similar_to=pd.Series(curation.similar_to, dtype="str"),
        similarity=curation.similarity,
        judge_probability=np.nan,
        backbone_label=pd.array([pd.NA] * len(table), dtype="Int8"),
    )


def for_backbones(table: pd.DataFrame) -> pd.DataFrame:
    """The posts table that backbones get: all real rows, which they score, and the kept synthetic ones.

    Of the verdict only `keep` stays, which says on which rows they may fit.
    """
    rows = table[table["keep"] | (table["source"] == REAL)]
    return rows.drop(columns=[name for name in VERDICT if name != "keep"], errors="ignore").reset_index(drop=True)


def funnel(table: pd.DataFrame) -> list[dict[str, object]]:
    """How many synthetic posts each stage took, in a row per source and label.

    Keys: source, label, made, one per stage that took any, kept.
    """
    made = table[table["source"] != REAL]
    return [
        {
            "source": source,
            "label": label,
            "made": len(group),
            **{stage: int((group["stage"] == stage).sum()) for stage in STAGES if (made["stage"] == stage).any()},
            "kept": int(group["keep"].sum()),
        }
        for (source, label), group in made.groupby(["source", "label"], sort=True)
    ]


def type_funnel(table: pd.DataFrame, asked: Mapping[str, int]) -> list[dict[str, object]]:
    """How many positive posts of each type were asked for, made and kept, in a row per type; `asked` is by type.

    Keys: type, asked, made, kept.
    """
    if "asked_type" not in table:
        return []
    made = table[table["source"] != REAL]
    return [
        {"type": name, "asked": count, "made": len(mine), "kept": int(mine["keep"].sum())}
        for name, count in asked.items()
        for mine in [made[made["asked_type"] == name]]
    ]


class _Curation:
    """What is said of each row of a table so far; the first objection to a row counts."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table
        self.made = (table["source"] != REAL).to_numpy(dtype=bool)
        parents = table["parent_id"].fillna("").astype(str)
        paired = ((table["source"] == CONTRAST) & (parents != "")).to_numpy(dtype=bool)
        self._pairs = np.full(len(table), -1, dtype=np.int64)  # the number of each row's pair, -1 for none
        self._pairs[paired] = pd.factorize(parents[paired])[0]
        self.stage, self.reason, self.similar_to = ([""] * len(table) for _ in range(3))
        self.similarity = np.zeros(len(table))

    @property
    def keep(self) -> NDArray[np.bool_]:
        """Rows without an objection, bool (rows,)."""
        return np.array([not stage for stage in self.stage], dtype=bool)

    def object_all(self, rows: Ints, found: list[Objection | None]) -> None:
        """Note the objections to rows, and object to the other halves of their pairs."""
        for row, objection in zip(rows, found, strict=True):
            if objection:
                self.stage[row], self.reason[row] = objection
        self._drop_other_halves()

    def drop_identical_halves(self) -> None:
        """Object to pairs of one text, which cannot have both labels."""
        keys = [
            normalise(text) if pair >= 0 else "" for text, pair in zip(self._table["text"], self._pairs, strict=True)
        ]
        halves = pd.DataFrame({"pair": self._pairs, "key": keys})
        same = (halves["pair"] >= 0) & halves["key"].ne("") & halves.duplicated(keep=False)
        for row in np.flatnonzero(same & self.keep):
            self.stage[row], self.reason[row] = "pair", "both halves are the same text"

    def deduplicate(self, threshold: float, embedder: Embedder) -> None:
        """Among all real posts, dev and test too because a copy of a test post is leakage, then synthetic ones."""
        rows = self._side_by_side(np.flatnonzero(self.keep))
        texts = self._table["text"].iloc[rows].tolist()
        keys, words = [normalise(text) for text in texts], word_indices(texts, share_of_words(threshold))
        protected = int((~self.made[rows]).sum())
        found = duplicates(keys, embedder.embed(texts), threshold, protected, words, self._pairs[rows])
        ids, splits = self._table["id"].to_numpy(), self._table["split"].to_numpy()
        for place in np.flatnonzero(found.like >= 0):
            row, other = int(rows[place]), int(rows[found.like[place]])
            what = "a synthetic post" if self.made[other] else f"a real post of {splits[other]}"
            self.stage[row], self.reason[row] = "duplicate", f"{_LIKE[found.measure[place]]} {what}"
            self.similar_to[row], self.similarity[row] = str(ids[other]), float(found.similarity[place])
        self._drop_other_halves()

    def drop_contradictions(self) -> None:
        """Object to real training posts whose text has the other label too."""
        rows = ~self.made & training_rows(self._table).to_numpy()
        training = self._table[rows]
        groups = pd.Series(duplicate_groups(training), index=training.index)
        disagree = training["label"].groupby(groups).transform("nunique").to_numpy(dtype=int) > 1
        for row in np.flatnonzero(rows)[disagree]:
            self.stage[row], self.reason[row] = "contradiction", "the same text has the other label too"

    def _drop_other_halves(self) -> None:
        lost = {int(self._pairs[row]): stage for row, stage in enumerate(self.stage) if stage and self._pairs[row] >= 0}
        for row in np.flatnonzero(self.keep & np.isin(self._pairs, list(lost))):
            self.stage[row], self.reason[row] = "pair", f"its other half did not pass {lost[int(self._pairs[row])]}"

    def _side_by_side(self, rows: Ints) -> Ints:
        """Rows in their order, but the second half of a pair right after the first."""
        numbers, places = self._pairs[rows], np.arange(len(rows))
        first = pd.Series(places).groupby(np.where(numbers >= 0, numbers, -1 - places)).transform("min").to_numpy()
        return rows[np.lexsort((places, first))]
