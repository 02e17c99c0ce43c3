"""The linear backbone: features counted once per language, one model per fold and a final one, all in one adapter."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polar_pipeline.backbones.artifacts import AdapterRef, Tensors, load_adapter
from polar_pipeline.backbones.base import Backbone, Progress, fitted_rows, real_posts, training_fingerprint
from polar_pipeline.backbones.linear.features import Keys, NgramKind, count, count_known, ngrams, surface_features
from polar_pipeline.backbones.linear.model import Features, LinearModel, Scaling, fit, logits
from polar_pipeline.corpus.posts import REAL
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.settings.backbones import LinearSettings
from polar_pipeline.task.card import MAIN_HEAD, TaskCard

VERSION = 1  # raised when the same settings give other scores: older adapters are then refused


def ngram_kinds(settings: LinearSettings) -> dict[NgramKind, float]:
    """The kinds of n-grams that are counted, with the weight of each."""
    lengths = (settings.words, settings.characters_in_words, settings.cased_characters)
    kinds = zip(("words", "char_wb", "char"), lengths, (False, False, True), settings.shares, strict=True)
    return {NgramKind(name, *chosen, cased): share for name, chosen, cased, share in kinds if chosen}


class LinearBackbone(Backbone):
    """n-grams and logistic regression, fitted on the posts of one language."""

    def __init__(self, settings: LinearSettings, seed: int, folds: int, card: TaskCard, root: Path) -> None:
        chosen = settings.model_dump(mode="json")
        super().__init__(settings.name, {**chosen, "seed": seed, "folds": folds, "version": VERSION}, card, root)
        self._settings, self._seed, self._folds = settings, seed, folds
        self._kinds = ngram_kinds(settings)
        self._shares = tuple(self._kinds.values())
        self._loaded: tuple[AdapterRef, Tensors, int] | None = None  # the adapter that `logits` used last

    def train(self, language: str, posts: pd.DataFrame, progress: Progress, force: bool = False) -> AdapterRef:  # noqa: ARG002
        """Fit a model per fold and the final one on the rows in folds, and save them with the out-of-fold logits."""
        rows = posts[posts["fold"] >= 0]
        labels, folds = rows["label"].to_numpy(dtype=int), rows["fold"].to_numpy(dtype=int)
        fitted, real = fitted_rows(rows).to_numpy(dtype=bool), (rows["source"] == REAL).to_numpy()
        features, vocabularies = _count(rows["text"].tolist(), self._kinds)
        out_of_fold = np.zeros(len(rows))
        models = []
        for fold in range(self._folds):
            # a synthetic post has the fold of the posts that it was made from, so it leaves with them
            held_out, inside = (folds == fold) & real, (folds != fold) & fitted
            model = self._fit(features.rows(inside), labels[inside])
            out_of_fold[held_out] = self._logits(model, features.rows(held_out))
            progress.advance(fold + 1, self._folds, "folds")
            progress(f"{language}: fold {fold + 1} of {self._folds} fitted on {int(inside.sum())} posts")
            models.append(model)
        if self._settings.final == "retrain":
            models = [self._fit(features.rows(fitted), labels[fitted])]
        tensors = {"out_of_fold": out_of_fold[real], **_pack(models, self._kinds, vocabularies)}
        meta = {"settings": self.parameters, "models": len(models), "posts": len(rows)}
        return self._save(language, training_fingerprint(posts, self._card), tensors, meta)

    def score(
        self,
        language: str,
        ref: AdapterRef,
        posts: pd.DataFrame,
        progress: Progress | None = None,  # noqa: ARG002
    ) -> pd.DataFrame:
        """Scores of all rows: the stored out-of-fold logits, and the mean logit of the adapter's final models."""
        self._check(language, ref, training_fingerprint(posts, self._card))
        tensors, meta = load_adapter(self._root, ref)
        posts = real_posts(posts)
        others = (posts["fold"] < 0).to_numpy()
        scores: Floats = np.zeros(len(posts))
        scores[~others] = tensors["out_of_fold"]
        if others.any():
            scores[others] = self._final(tensors, meta["models"], posts.loc[others, "text"].tolist())
        return self._scores(language, posts, {self._seed: scores})

    def release(self) -> None:
        """Forget the adapter that `logits` used last."""
        self._loaded = None

    def logits(self, language: str, ref: AdapterRef, texts: list[str], seeds: tuple[int, ...]) -> dict[str, Floats]:  # noqa: ARG002
        """Logits (texts,) of new texts by the final model, or the mean of the final models."""
        if self._loaded is None or self._loaded[0] != ref:
            self._check(language, ref)
            tensors, meta = load_adapter(self._root, ref)
            self._loaded = ref, tensors, meta["models"]
        return {MAIN_HEAD: self._final(*self._loaded[1:], texts)}

    def _final(self, tensors: Tensors, models: int, texts: list[str]) -> Floats:
        scores: Floats = np.mean(
            [self._logits(*_unpack(tensors, self._kinds, place, texts)) for place in range(models)], axis=0
        )
        return scores

    def _fit(self, features: Features, labels: NDArray[np.int64]) -> LinearModel:
        return fit(features, labels, self._shares, self._settings.surface_share, self._settings.regularisation)

    def _logits(self, model: LinearModel, features: Features) -> Floats:
        return logits(model, features, self._shares, self._settings.surface_share)


def _count(texts: list[str], kinds: Iterable[NgramKind]) -> tuple[Features, list[Keys]]:
    counted = [count(*ngrams(texts, kind), len(texts)) for kind in kinds]
    return Features(tuple(counts for counts, _ in counted), surface_features(texts)), [keys for _, keys in counted]


def _pack(models: list[LinearModel], kinds: Iterable[NgramKind], vocabularies: list[Keys]) -> Tensors:
    """Each model's tensors under its number; n-grams that it does not use are left out."""
    tensors: Tensors = {}
    for place, model in enumerate(models):
        used = [scale > 0 for scale in model.scales]
        ends = np.cumsum([len(scale) for scale in model.scales])
        parts = np.split(model.weights, ends)
        for kind, keys, scale, part, use in zip(kinds, vocabularies, model.scales, parts[:-1], used, strict=True):
            tensors |= {f"{place}.{kind.name}.keys": keys[use], f"{place}.{kind.name}.scale": scale[use]}
            tensors[f"{place}.{kind.name}.weights"] = part[use]
        tensors |= {f"{place}.surface.{name}": value for name, value in model.scaling._asdict().items()}
        tensors |= {f"{place}.surface.weights": parts[-1], f"{place}.intercept": np.array([model.intercept])}
    return tensors


def _unpack(tensors: Tensors, kinds: Iterable[NgramKind], place: int, texts: list[str]) -> tuple[LinearModel, Features]:
    """A stored model, and texts counted with its vocabulary."""

    def part(name: str) -> NDArray[Any]:
        return tensors[f"{place}.{name}"]

    scaling = Scaling(*(part(f"surface.{name}") for name in Scaling._fields))
    weights = np.concatenate([*(part(f"{kind.name}.weights") for kind in kinds), part("surface.weights")])
    scales = tuple(part(f"{kind.name}.scale") for kind in kinds)
    counts = tuple(count_known(*ngrams(texts, kind), len(texts), part(f"{kind.name}.keys")) for kind in kinds)
    return LinearModel(scales, scaling, weights, float(part("intercept")[0])), Features(counts, surface_features(texts))
