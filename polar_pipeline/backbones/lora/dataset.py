"""The posts of one language as tokens, and the models to train on them: per seed, one per fold and a final one."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.backbones.base import fitted_rows, training_fingerprint
from polar_pipeline.backbones.lora.base_model import BaseModel, Tokens
from polar_pipeline.backbones.lora.batching import Mask, training_tokens
from polar_pipeline.backbones.lora.optimizer import row_weights
from polar_pipeline.corpus.posts import REAL
from polar_pipeline.metrics.scores import Floats, Ints
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.storage.fingerprint import fingerprint, frame_fingerprint
from polar_pipeline.task.card import TaskCard

_PROBE = 400  # posts whose logits are noted in training and compared with those of the adapter read from disk


class Rows(NamedTuple):
    """Rows of one language."""

    tokens: Tokens
    labels: Ints  # 0/1
    synthetic: Mask

    def take(self, which: "Mask | Ints") -> "Rows":
        """Some of them, by mask or number."""
        places = np.flatnonzero(which) if which.dtype == bool else which
        return Rows([self.tokens[place] for place in places], self.labels[places], self.synthetic[places])

    @property
    def lengths(self) -> Ints:
        """Tokens per row."""
        return np.array([len(row) for row in self.tokens], dtype=np.int64)


class TrainingTask(NamedTuple):
    """What one model is trained on."""

    title: str  # such as "deu fold 1 of 5"
    key: str  # such as "fold-0-seed-0"
    rows: Rows
    weights: Floats  # of `rows`
    watch: Rows | None  # never fitted on; early stopping may look at it
    random_seed: int

    def tokens(self, settings: LoraSettings) -> int:
        """Real tokens in all steps of the training."""
        return training_tokens(self.rows.lengths, self.rows.synthetic, settings)


class PlannedModel(NamedTuple):
    """One model of a language.

    It scores the rows `judged` right after training: those that its fold holds out, or the probe.
    """

    seed: int
    fold: int  # -1: the final one
    task: TrainingTask
    judged: Rows

    @property
    def key(self) -> str:
        """The name of its folder."""
        return self.task.key


class LanguageDataset:
    """The tokenized posts of one language, and the models to train on them."""

    def __init__(self, posts: pd.DataFrame, base: BaseModel, settings: LoraSettings, title: str, seed: int) -> None:
        self._settings, self._title, self._seed = settings, title, seed
        self._real = (posts["source"] == REAL).to_numpy(dtype=bool)
        self._folds = posts["fold"].to_numpy(dtype=int)
        self._fitted = fitted_rows(posts).to_numpy(dtype=bool)
        self._dev = _labelled_dev(posts)
        self.probe = probe_rows(posts)
        labels = posts["label"].fillna(0).to_numpy(dtype=np.int64)
        self.rows = Rows(base.tokens(posts["text"].tolist()), labels, ~self._real)

    @property
    def in_folds(self) -> Mask:
        """Real rows in folds: those that get out-of-fold logits."""
        inside: Mask = self._real & (self._folds >= 0)
        return inside

    @property
    def folds(self) -> Ints:
        """The folds of those rows."""
        folds: Ints = self._folds[self.in_folds]
        return folds

    def held_out(self, fold: int) -> Mask:
        """Real rows of a fold."""
        inside: Mask = self._real & (self._folds == fold)
        return inside

    def models(self) -> list[PlannedModel]:
        """All of them, folds first.

        A synthetic post has the fold of the posts that it was made from, so it leaves with them.
        """
        folds = sorted(set(self.folds.tolist()))
        numbers = [*folds] if folds and self._settings.final == "fold_average" else [*folds, -1]
        return [self._model(fold, seed, len(folds)) for seed in self._settings.seeds for fold in numbers]

    def _model(self, fold: int, seed: int, folds: int) -> PlannedModel:
        final = fold < 0
        key = f"final-seed-{seed}" if final else f"fold-{fold}-seed-{seed}"
        title = f"{self._title} final model" if final else f"{self._title} fold {fold + 1} of {folds}"
        title += f", seed {seed}" if len(self._settings.seeds) > 1 else ""
        inside = self._fitted if final else self._fitted & (self._folds != fold)
        rows = self.rows.take(inside)
        judged = self.rows.take(self.probe if final else self.held_out(fold))
        weights = row_weights(rows.labels, rows.synthetic, self._settings)
        # the same for all languages: an adapter depends on its own posts alone
        random_seed = int(fingerprint([self._seed, seed, fold])[:8], 16)
        return PlannedModel(
            seed, fold, TrainingTask(title, key, rows, weights, self._watched(fold), random_seed), judged
        )

    def _watched(self, fold: int) -> Rows | None:
        """Rows that the model has not seen: dev if it is outside the folds, else what its fold holds out, to look at.

        The profile allows early stopping in the first case alone, so that nothing is judged on what stopped it.
        """
        outside = self._dev & self._real & (self._folds < 0)
        if outside.any():
            return self.rows.take(outside)
        return self.rows.take(self.held_out(fold)) if fold >= 0 else None


def probe_rows(posts: pd.DataFrame) -> Ints:
    """Numbers of the rows that final models score before and after they are saved: of dev, else of the fitted rows."""
    real = (posts["source"] == REAL).to_numpy(dtype=bool)
    rows = np.flatnonzero(_labelled_dev(posts) & real)
    return (rows if len(rows) else np.flatnonzero(real & fitted_rows(posts).to_numpy(dtype=bool)))[:_PROBE]


def _labelled_dev(posts: pd.DataFrame) -> Mask:
    labelled: Mask = (posts["split"] == "dev").to_numpy(dtype=bool) & posts["label"].notna().to_numpy(dtype=bool)
    return labelled


def dataset_fingerprint(posts: pd.DataFrame, card: TaskCard) -> str:
    """sha256 of all posts that make an adapter: the fitted ones, and dev outside the folds.

    Dev may stop the training, and is its probe.
    """
    watched = (posts["split"] == "dev") & (posts["fold"] < 0) & posts["label"].notna() & (posts["source"] == REAL)
    fitted = training_fingerprint(posts, card)
    return fingerprint([fitted, frame_fingerprint(posts[watched], ["id", "text", "label"])])
