"""What has to be trained for one language: a model per fold and seed, and a final one per seed, each with its rows.

What does not belong here: training them.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.backbones.base import fitted_rows, training_fingerprint
from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.backbones.lora.loss import row_weights
from polar_pipeline.backbones.lora.rows import Fit, Mask, Rows
from polar_pipeline.metrics.scores import Ints
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.storage.fingerprint import fingerprint, frame_fingerprint
from polar_pipeline.task.card import TaskCard

_PROBE = 400  # posts whose logits are noted in training and held against those of the adapter read from disk


class Model(NamedTuple):
    """One model of a language. `judged` are the rows that it scores right after training: what its fold holds out, or the probe."""

    seed: int
    fold: int  # -1: the final one
    fit: Fit
    judged: Rows

    @property
    def key(self) -> str:
        """Its folder's name."""
        return self.fit.key


class Language:
    """The posts of one language as tokens, and the models to train on them."""

    def __init__(self, posts: pd.DataFrame, base: BaseModel, settings: LoraSettings, title: str, seed: int) -> None:
        self._settings, self._title, self._seed = settings, title, seed
        self._real = (posts["source"] == "real").to_numpy(dtype=bool)
        self._folds = posts["fold"].to_numpy(dtype=int)
        self._fitted = fitted_rows(posts).to_numpy(dtype=bool)
        self._dev = _labelled_dev(posts)
        self.probe = probe_rows(posts)
        labels = posts["label"].fillna(0).to_numpy(dtype=np.int64)
        self.rows = Rows(base.tokens(posts["text"].tolist()), labels, ~self._real)

    @property
    def folded(self) -> Mask:
        """Real rows in folds: those that get out-of-fold logits."""
        inside: Mask = self._real & (self._folds >= 0)
        return inside

    @property
    def folds_of_folded(self) -> Ints:
        """The folds of those rows."""
        folds: Ints = self._folds[self.folded]
        return folds

    def held_out(self, fold: int) -> Mask:
        """Real rows of a fold."""
        inside: Mask = self._real & (self._folds == fold)
        return inside

    def models(self) -> list[Model]:
        """All of them, folds first. A synthetic post has the fold of the posts that it was made from, so it leaves with them."""
        folds = sorted(set(self._folds[self.folded].tolist()))
        numbers = [*folds] if folds and self._settings.final == "fold_average" else [*folds, -1]
        return [self._model(fold, seed, len(folds)) for seed in self._settings.seeds for fold in numbers]

    def _model(self, fold: int, seed: int, folds: int) -> Model:
        final = fold < 0
        key = f"final-seed-{seed}" if final else f"fold-{fold}-seed-{seed}"
        title = f"{self._title} final model" if final else f"{self._title} fold {fold + 1} of {folds}"
        title += f", seed {seed}" if len(self._settings.seeds) > 1 else ""
        inside = self._fitted if final else self._fitted & (self._folds != fold)
        rows = self.rows.take(inside)
        judged = self.rows.take(self.probe if final else self.held_out(fold))
        weights = row_weights(rows.labels, rows.synthetic, self._settings)
        # one for all languages: an adapter depends on its own posts alone
        start = int(fingerprint([self._seed, seed, fold])[:8], 16)
        return Model(seed, fold, Fit(title, key, rows, weights, self._watch(fold), start), judged)

    def _watch(self, fold: int) -> Rows | None:
        """Rows that the model has not seen: of dev, where dev is outside the folds; else what its fold holds out, to look at only.

        The profile allows early stopping in the first case alone, so that nothing is judged on what stopped it.
        """
        outside = self._dev & self._real & (self._folds < 0)
        if outside.any():
            return self.rows.take(outside)
        return self.rows.take(self.held_out(fold)) if fold >= 0 else None


def probe_rows(posts: pd.DataFrame) -> Ints:
    """Numbers of the rows that every final model scores before and after it was written: of dev, else of what is fitted on."""
    real = (posts["source"] == "real").to_numpy(dtype=bool)
    rows = np.flatnonzero(_labelled_dev(posts) & real)
    return (rows if len(rows) else np.flatnonzero(real & fitted_rows(posts).to_numpy(dtype=bool)))[:_PROBE]


def _labelled_dev(posts: pd.DataFrame) -> Mask:
    labelled: Mask = (posts["split"] == "dev").to_numpy(dtype=bool) & posts["label"].notna().to_numpy(dtype=bool)
    return labelled


def seen_fingerprint(posts: pd.DataFrame, card: TaskCard) -> str:
    """sha256 of all that makes an adapter: what is fitted on, and the dev posts outside folds, which stop its training and are its probe."""
    watched = (posts["split"] == "dev") & (posts["fold"] < 0) & posts["label"].notna() & (posts["source"] == "real")
    fitted = training_fingerprint(posts, card)
    return fingerprint([fitted, frame_fingerprint(posts[watched], ["id", "text", "label"])])
