"""Temporary core; the wrapper stays."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef, check_provenance, load_adapter, save_adapter
from polar_pipeline.backbones.base import Progress, scores_table, training_fingerprint
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.profile import LinearSettings

VERSION = 1


def _features(texts: list[str]) -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=2**18, alternate_sign=False).transform(
        texts
    )


def _fit(x: Any, y: Any) -> Any:
    from sklearn.linear_model import LogisticRegression

    m = LogisticRegression(C=10, solver="liblinear").fit(x, y)
    return np.append(m.coef_[0], m.intercept_[0])


class LinearBackbone:
    """n-grams and linear models of one language."""

    def __init__(self, settings: LinearSettings, seed: int, folds: int) -> None:
        self.name, self._settings, self._seed, self._folds = settings.name, settings, seed, folds
        self.parameters = {**settings.model_dump(), "seed": seed, "version": VERSION}
        self._config = fingerprint(self.parameters | {"folds": folds})

    def train(self, language: str, posts: pd.DataFrame, card: TaskCard, root: Path, progress: Progress) -> AdapterRef:
        """Fit."""
        rows = posts[posts["fold"] >= 0]
        x = _features(rows["text"].tolist())
        y = rows["label"].to_numpy(dtype=int)
        fold = rows["fold"].to_numpy()
        oof = np.zeros(len(rows))
        for k in range(self._folds):
            held = fold == k
            w = _fit(x[~held], y[~held])
            oof[held] = x[held] @ w[:-1] + w[-1]
        return save_adapter(
            root,
            {"w": _fit(x, y), "out_of_fold": oof},
            {},
            backbone=self.name,
            language=language,
            config=self._config,
            posts=training_fingerprint(posts, card),
        )

    def score(self, ref: AdapterRef, posts: pd.DataFrame, card: TaskCard, root: Path) -> pd.DataFrame:
        """Score."""
        check_provenance(
            ref, backbone=self.name, language=ref.language, config=self._config, posts=training_fingerprint(posts, card)
        )
        tensors, _ = load_adapter(root, ref)
        held = (posts["fold"] >= 0).to_numpy()
        logits: Floats = np.zeros(len(posts))
        logits[held] = tensors["out_of_fold"]
        w = tensors["w"]
        logits[~held] = _features(posts["text"][~held].tolist()) @ w[:-1] + w[-1]
        return scores_table(posts, logits, backbone=self.name, seed=self._seed, language=ref.language)
