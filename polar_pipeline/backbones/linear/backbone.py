"""The linear backbone: features counted once per language, one model per fold and a final one, all in one adapter."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from polar_pipeline.backbones.artifacts import AdapterRef, Tensors, load_adapter
from polar_pipeline.backbones.base import Backbone, Progress, fitted_rows, real_posts, training_fingerprint
from polar_pipeline.backbones.linear.features import (
    Keys,
    NgramKind,
    RowNumbers,
    count,
    count_known,
    ngrams,
    surface_features,
)
from polar_pipeline.backbones.linear.model import Features, LinearModel, Scaling, fit, logits
from polar_pipeline.corpus.labels import target_labels
from polar_pipeline.corpus.posts import REAL
from polar_pipeline.metrics.scores import Floats, Ints, Matrix
from polar_pipeline.settings.backbones import LinearSettings
from polar_pipeline.task.card import MAIN_HEAD, TaskCard

VERSION = 2  # raised when the same settings give other scores: older adapters are then refused


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
        self._loaded: tuple[AdapterRef, Tensors, dict[str, Any]] | None = None  # the adapter that `logits` used last

    def train(self, language: str, posts: pd.DataFrame, progress: Progress, force: bool = False) -> AdapterRef:  # noqa: ARG002
        """Fit a model per fold and the final one on the rows in folds, and save them with the out-of-fold logits."""
        rows = posts[posts["fold"] >= 0]
        labels, folds = self._labels(rows), rows["fold"].to_numpy(dtype=int)
        fitted, real = fitted_rows(rows).to_numpy(dtype=bool), (rows["source"] == REAL).to_numpy()
        features, vocabularies = _count(rows["text"].tolist(), self._kinds)
        out_of_fold = np.zeros((len(labels), len(rows)))
        models: dict[str, list[LinearModel]] = {head: [] for head in labels}
        for fold in range(self._folds):
            # a synthetic post has the fold of the posts that it was made from, so it leaves with them
            held_out, inside = (folds == fold) & real, (folds != fold) & fitted
            seen, unseen = features.rows(inside), features.rows(held_out)
            for place, (head, values) in enumerate(labels.items()):
                models[head].append(self._fit(seen, values[inside]))
                out_of_fold[place, held_out] = self._logits(models[head][-1], unseen)
            progress.advance(fold + 1, self._folds, "folds")
            progress(f"{language}: fold {fold + 1} of {self._folds} fitted on {int(inside.sum())} posts")
        if self._settings.final == "retrain":
            whole = features.rows(fitted)
            models = {head: [self._fit(whole, values[fitted])] for head, values in labels.items()}
        packed = _pack([model for mine in models.values() for model in mine], self._kinds, vocabularies)
        tensors = {"out_of_fold": out_of_fold[:, real], **packed}
        meta = {"settings": self.parameters, "heads": list(labels), "posts": len(rows)}
        meta["models"] = len(next(iter(models.values())))  # of each head
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
        final = self._final(tensors, meta, posts.loc[others, "text"].tolist()) if others.any() else {}
        heads = {}
        for place, head in enumerate(meta["heads"]):
            scores = np.zeros(len(posts))
            scores[~others] = tensors["out_of_fold"][place]
            scores[others] = final.get(head, [])
            heads[head] = {self._seed: scores}
        return self._scores(language, posts, heads)

    def release(self) -> None:
        """Forget the adapter that `logits` used last."""
        self._loaded = None

    def logits(self, language: str, ref: AdapterRef, texts: list[str], seeds: tuple[int, ...]) -> dict[str, Floats]:  # noqa: ARG002
        """Logits (texts,) of new texts by head, of the final model or the mean of the final models."""
        if self._loaded is None or self._loaded[0] != ref:
            self._check(language, ref)
            tensors, meta = load_adapter(self._root, ref)
            self._loaded = ref, tensors, meta
        return self._final(*self._loaded[1:], texts)

    def _final(self, tensors: Tensors, meta: dict[str, Any], texts: list[str]) -> dict[str, Floats]:
        models = meta["models"]
        counted = {kind: ngrams(texts, kind) for kind in self._kinds}
        surface = surface_features(texts)
        found = {}
        for place, head in enumerate(meta["heads"]):
            mine = range(place * models, (place + 1) * models)
            parts = [self._logits(*_unpack(tensors, number, counted, surface)) for number in mine]
            found[head] = np.mean(parts, axis=0)
        return found

    def _labels(self, rows: pd.DataFrame) -> dict[str, Ints]:
        """0/1 labels (rows,) by head: the targets, and of a multilabel task whether there is any label too."""
        targets = target_labels(rows, self._card)
        if self._card.kind == "multilabel":
            targets.insert(0, MAIN_HEAD, rows["label"])
        return {str(head): values.to_numpy(dtype=int) for head, values in targets.items()}

    def _fit(self, features: Features, labels: Ints) -> LinearModel:
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


def _unpack(
    tensors: Tensors, place: int, counted: Mapping[NgramKind, tuple[Keys, RowNumbers]], surface: Matrix
) -> tuple[LinearModel, Features]:
    """A stored model, and the n-grams of texts counted with its vocabulary."""

    def part(name: str) -> NDArray[Any]:
        return tensors[f"{place}.{name}"]

    scaling = Scaling(*(part(f"surface.{name}") for name in Scaling._fields))
    weights = np.concatenate([*(part(f"{kind.name}.weights") for kind in counted), part("surface.weights")])
    scales = tuple(part(f"{kind.name}.scale") for kind in counted)
    counts = tuple(count_known(*found, len(surface), part(f"{kind.name}.keys")) for kind, found in counted.items())
    return LinearModel(scales, scaling, weights, float(part("intercept")[0])), Features(counts, surface)
