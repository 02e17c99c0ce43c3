"""The protocol of all backbones, and the scores table that they all make.

A backbone trains on the kept posts of one language and saves an adapter; from the adapter alone it gives every post a
logit. A row with fold >= 0 is scored by a model that never saw it, all others by the final model.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.corpus.posts import REAL
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.settings.backbones import BackboneSettings, ImportedSettings, LoraSettings
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.fingerprint import frame_fingerprint
from polar_pipeline.task.card import TaskCard

if TYPE_CHECKING:
    from polar_pipeline.backbones.lora.loading import ModelCache

SCORE_COLUMNS = ["backbone", "seed", "language", "split", "fold", "id", "logit"]

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
        """`done` of `total` units are done, such as tokens or folds of a whole training; another unit is another phase.

        May be called often: the first and the last call of a phase and about one per second are passed on.
        """
        now = time.monotonic()
        if unit == self._unit and done < total and now - self._advanced < _ADVANCE_SECONDS:
            return
        self._unit, self._advanced = unit, now
        if self._advance:
            self._advance(done, total, unit)

    def advancing(self, before: float, total: float, unit: str) -> Callable[[float], None]:
        """A callback for one part of a phase, which has done what it is given after the `before` of earlier parts."""
        return lambda done: self.advance(before + done, total, unit)

    def note(self, values: dict[str, float]) -> None:
        """Figures of the whole, whenever they were measured."""
        self.figures |= values


class Backbone(Protocol):
    """What the assets need of a backbone. Subclasses hold nothing and probe nothing unless they say so."""

    name: str
    config: str  # fingerprint of what scores depend on; an adapter of another one is refused
    parameters: dict[str, str | int | float | bool]  # what the tracked run notes

    def speaks(self, language: str) -> bool:
        """Whether there are scores of this language; if not, the adapter and the scores table are empty."""

    def train(
        self,
        language: str,
        posts: pd.DataFrame,
        card: TaskCard,
        root: Path,
        progress: Progress,
        force: bool = False,
    ) -> AdapterRef:
        """Fit on the rows with fold >= 0, one model per fold and a final one, and save the adapter under `root`.

        A finished adapter of the same settings and posts may be returned as it is, if it is intact; `force` trains
        again.
        """

    def score(
        self,
        language: str,
        ref: AdapterRef,
        posts: pd.DataFrame,
        card: TaskCard,
        root: Path,
        progress: Progress | None = None,
    ) -> pd.DataFrame:
        """The scores table of all rows of `posts`, from the adapter alone, after its provenance was checked."""

    def probes(self, ref: AdapterRef, posts: pd.DataFrame, root: Path) -> pd.DataFrame:
        """A scores table of rows that the final models were probed with after training; empty if there are none."""
        del root
        return no_scores(posts, self.name, ref.language)

    def logits(self, language: str, ref: AdapterRef, texts: list[str], root: Path, seeds: tuple[int, ...]) -> Floats:
        """Mean logits (texts,) of new texts by the final models of `seeds`.

        Raises InputError if the backbone cannot score new texts.
        """

    def release(self) -> None:
        """Give back the memory that is held between languages, if any is."""
        return


def no_scores(posts: pd.DataFrame, backbone: str, language: str) -> pd.DataFrame:
    """A scores table without rows."""
    return scores_table(posts.iloc[:0], np.zeros(0), backbone=backbone, seed=0, language=language)


def real_posts(posts: pd.DataFrame) -> pd.DataFrame:
    """The rows that are scored and judged; synthetic ones are only ever fitted on."""
    return posts[posts["source"] == REAL].reset_index(drop=True)


def fitted_rows(posts: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows may be fitted on: those in folds, or of train without folds, less those that curation dropped."""
    inside = posts["fold"] >= 0
    if not inside.any():
        inside = posts["split"] == "train"
    return inside & posts["keep"] if "keep" in posts else inside


def training_fingerprint(posts: pd.DataFrame, card: TaskCard) -> str:
    """sha256 of everything that training can see: the rows in folds, their texts, labels and folds. Nothing of test."""
    inside = posts["fold"] >= 0
    rows = posts[inside if inside.any() else posts["label"].notna()]
    verdict = ["keep"] if "keep" in posts else []
    return frame_fingerprint(rows, ["id", "text", "label", "split", "fold", *verdict, *card.auxiliary.columns])


def scores_table(posts: pd.DataFrame, logits: Floats, *, backbone: str, seed: int, language: str) -> pd.DataFrame:
    """One row per post: `SCORE_COLUMNS`. Raises InputError if a logit is not finite."""
    bad = ~np.isfinite(logits)
    if bad.any():
        raise InputError(
            f"backbone {backbone!r} gave {int(bad.sum())} posts of {language} no finite logit: "
            f"lower its learning rate or regularise it more."
        )
    table = posts[["split", "fold", "id"]].reset_index(drop=True)
    table = table.assign(backbone=backbone, seed=seed, language=language, logit=np.asarray(logits, dtype="float64"))
    return table[SCORE_COLUMNS]


def make_backbone(settings: BackboneSettings, profile: Profile, models: "ModelCache | None" = None) -> Backbone:
    """The backbone that an entry of a profile names; `models` is shared between backbones.

    Making it trains nothing and imports nothing heavy.
    """
    # each of these imports this module
    from polar_pipeline.backbones.imported import ImportedBackbone
    from polar_pipeline.backbones.linear.backbone import LinearBackbone
    from polar_pipeline.backbones.lora.backbone import LoraBackbone
    from polar_pipeline.backbones.lora.loading import ModelCache
    from polar_pipeline.backbones.lora.pooled import PooledBackbone

    if isinstance(settings, ImportedSettings):
        return ImportedBackbone(settings)
    if isinstance(settings, LoraSettings):
        make = PooledBackbone if settings.scope == "pooled" else LoraBackbone
        return make(settings, profile.seed, profile.folds.count, models or ModelCache())
    return LinearBackbone(settings, profile.seed, profile.folds.count)
