"""What all backbones have in common, and the scores table that they all make.

A row with fold >= 0 is scored by a model that never saw it, all others by the final model. A backbone may have several
heads, each with a binary score of its own: one for each target of the task card, by its name, and others for the label
of the whole post, by the names of the card's auxiliary groups.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef, Tensors, check_provenance, save_adapter
from polar_pipeline.corpus.folds import training_rows
from polar_pipeline.corpus.posts import REAL
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.settings.backbones import Languages
from polar_pipeline.storage.fingerprint import fingerprint, frame_fingerprint
from polar_pipeline.task.card import MAIN_HEAD, TaskCard

SCORE_COLUMNS = ["backbone", "head", "seed", "language", "split", "fold", "id", "logit"]

_ADVANCE_SECONDS = 1.0


class Progress:
    """Receives what a training or scoring reports; by default nobody listens.

    `say` gets lines for a person, `measure` a step and its figures, `advance` what is done, the total, and their unit.
    """

    def __init__(
        self,
        say: Callable[[str], None] | None = None,
        measure: Callable[[int, dict[str, float]], None] | None = None,
        advance: Callable[[float, float, str], None] | None = None,
    ) -> None:
        self._say, self._measure, self._advance = say, measure, advance
        self._unit, self._advanced = "", 0.0
        self.latest: dict[str, float] = {}  # the last value of each figure
        self.figures: dict[str, float] = {}  # what is known at the end, of an earlier run's work too

    def __call__(self, text: str) -> None:
        """One line for a person."""
        if self._say:
            self._say(text)

    def measure(self, step: int, values: dict[str, float]) -> None:
        """Figures of this step, for the tracked run."""
        self.latest |= values
        if self._measure:
            self._measure(step, values)

    def advance(self, done: float, total: float, unit: str) -> None:
        """`done` of `total` units of a phase are done, such as tokens of a training; another unit is another phase.

        May be called often: the first and the last call of a phase and about one per second are passed on.
        """
        now = time.monotonic()
        if unit == self._unit and done < total and now - self._advanced < _ADVANCE_SECONDS:
            return
        self._unit, self._advanced = unit, now
        if self._advance:
            self._advance(done, total, unit)

    def advancing(self, before: float, total: float, unit: str) -> Callable[[float], None]:
        """A callback that takes how much of a part is done, and reports it on top of the `before` of earlier parts."""
        return lambda done: self.advance(before + done, total, unit)


class Backbone(ABC):
    """What the assets need of a backbone. Subclasses hold nothing and probe nothing unless they say so."""

    texts_at_once = 1024  # new texts: n-grams need about 25 kB for each while they are counted, a tokenizer as much

    def __init__(
        self, name: str, parameters: dict[str, Any], card: TaskCard, root: Path, languages: Languages = "all"
    ) -> None:
        self.name = name
        self.parameters = parameters  # what the tracked run notes
        self.config = fingerprint(parameters)  # what scores depend on; an adapter of another one is refused
        self._card, self._root, self._languages = card, root, languages

    def speaks(self, language: str) -> bool:
        """Whether there are scores of this language; if not, the adapter and the scores table are empty."""
        return self._languages == "all" or language in self._languages

    @abstractmethod
    def train(self, language: str, posts: pd.DataFrame, progress: Progress, force: bool = False) -> AdapterRef:
        """Fit a model per fold and a final one on the rows with fold >= 0, and save the adapter below the root.

        An intact adapter of the same settings and posts may be returned as it is; `force` trains again.
        """

    @abstractmethod
    def score(
        self, language: str, ref: AdapterRef, posts: pd.DataFrame, progress: Progress | None = None
    ) -> pd.DataFrame:
        """The scores table of all rows of `posts`, from the adapter alone, after its provenance was checked."""

    def probes(self, ref: AdapterRef, posts: pd.DataFrame) -> pd.DataFrame:
        """A scores table of rows that the final models were probed with after training; empty if there are none."""
        return self._scores(ref.language, posts, {})

    @abstractmethod
    def logits(self, language: str, ref: AdapterRef, texts: list[str], seeds: tuple[int, ...]) -> dict[str, Floats]:
        """By head, the mean logits (texts,) of the final models of `seeds`.

        Raises InputError if it cannot score new texts.
        """

    def release(self) -> None:  # noqa: B027 - most hold none
        """Give back the memory that is held between languages, if any is."""

    def _check(self, language: str, ref: AdapterRef, posts: str | None = None) -> None:
        """Raises InputError if the adapter is of other settings, of another language or of other `posts`."""
        check_provenance(ref, self._provenance(language) | ({} if posts is None else {"posts_fingerprint": posts}))

    def _scores(self, language: str, posts: pd.DataFrame, heads: Mapping[str, Mapping[int, Floats]]) -> pd.DataFrame:
        """One row per head, seed and post, with `SCORE_COLUMNS`; empty without any.

        `heads` has, by the head's name and the seed, the logits (posts,). Raises InputError if one is not finite.
        """
        bad = sum(int((~np.isfinite(values)).sum()) for mine in heads.values() for values in mine.values())
        if bad:
            raise InputError(
                f"backbone {self.name!r} gave {bad} posts of {language} no finite logit: "
                f"lower its learning rate or regularise it more."
            )
        table = posts[["split", "fold", "id"]].assign(backbone=self.name, language=language)
        found = [
            table.assign(head=head, seed=seed, logit=np.asarray(values, dtype="float64"))
            for head, mine in heads.items()
            for seed, values in mine.items()
        ]
        empty = table.iloc[:0].assign(head=MAIN_HEAD, seed=0, logit=0.0)
        return pd.concat(found or [empty], ignore_index=True)[SCORE_COLUMNS]

    def _save(
        self, language: str, posts: str, tensors: Tensors, meta: dict[str, Any], parts: dict[str, bytes] | None = None
    ) -> AdapterRef:
        """Save an adapter of this backbone; `posts` is the fingerprint of those that it was trained on."""
        return save_adapter(self._root, tensors, meta, self._provenance(language) | {"posts_fingerprint": posts}, parts)

    def _provenance(self, language: str) -> dict[str, str]:
        return {"backbone": self.name, "language": language, "config_fingerprint": self.config}


def real_posts(posts: pd.DataFrame) -> pd.DataFrame:
    """The rows that are scored and judged; synthetic ones are only ever fitted on."""
    return posts[posts["source"] == REAL].reset_index(drop=True)


def fitted_rows(posts: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows may be fitted on: training rows, less those that curation dropped."""
    rows = training_rows(posts)
    return rows & posts["keep"] if "keep" in posts else rows


def training_fingerprint(posts: pd.DataFrame, card: TaskCard) -> str:
    """sha256 of everything that training can see: texts, labels and folds of the rows in folds.

    Without folds, those are all labelled rows. Nothing of test is among them.
    """
    inside = posts["fold"] >= 0
    rows = posts[inside if inside.any() else posts["label"].notna()]
    verdict = ["keep"] if "keep" in posts else []
    return frame_fingerprint(
        rows, ["id", "text", "label", "split", "fold", *verdict, *card.label_columns, *card.auxiliary.columns]
    )
