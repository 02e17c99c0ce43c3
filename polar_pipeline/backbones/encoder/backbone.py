"""The encoder backbone: posts embedded once, one head per fold and a final one, all in one adapter."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef, Tensors, load_adapter
from polar_pipeline.backbones.base import Backbone, Progress, fitted_rows, real_posts, training_fingerprint
from polar_pipeline.backbones.encoder.heads import Head, Labels, fit_head, head_logits
from polar_pipeline.corpus.labels import target_labels
from polar_pipeline.corpus.posts import REAL
from polar_pipeline.corpus.text import duplicate_groups
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats, Ints, Matrix
from polar_pipeline.pretrained.cache import EmbeddingCache
from polar_pipeline.pretrained.encoder import ENCODED_TOGETHER, Encoder, cache_file
from polar_pipeline.settings.backbones import EncoderSettings
from polar_pipeline.settings.models import Precision
from polar_pipeline.storage.home import BASES
from polar_pipeline.task.card import MAIN_HEAD, TaskCard

VERSION = 2  # raised when the same settings give other scores: older adapters are then refused
# how and for which languages it is computed, which changes no number of a language: no reason to train again
NOT_IN_FINGERPRINT = {"device", "threads", "languages"}


class EncoderBackbone(Backbone):
    """A head per language over embeddings that are shared by folds, languages and runs."""

    texts_at_once = 4096  # batches of a length are filled up, which costs less of many

    def __init__(
        self, settings: EncoderSettings, seed: int, folds: int, card: TaskCard, root: Path, embeddings: Path
    ) -> None:
        chosen = settings.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT)
        super().__init__(
            settings.name, {**chosen, "seed": seed, "folds": folds, "version": VERSION}, card, root, settings.languages
        )
        self._settings, self._seed, self._folds, self._embeddings = settings, seed, folds, embeddings
        self._encoder: Encoder | None = None
        self._loaded: tuple[AdapterRef, Tensors, dict[str, Any]] | None = None  # the adapter that `logits` used last

    def train(self, language: str, posts: pd.DataFrame, progress: Progress, force: bool = False) -> AdapterRef:  # noqa: ARG002
        """Fit a head per fold and the final one on the rows in folds, and save them with the out-of-fold logits."""
        whole = training_fingerprint(posts, self._card)
        if not self.speaks(language):
            return self._save(language, whole, {"out_of_fold": np.zeros((0, 0))}, {"heads": [], "models": 0})
        rows = posts[posts["fold"] >= 0]
        folds, fitted = rows["fold"].to_numpy(dtype=int), fitted_rows(rows).to_numpy(dtype=bool)
        real = (rows["source"] == REAL).to_numpy()
        encoder = self._ready(progress)
        features, labels = self._embed(rows["text"].tolist(), progress), self._labels(rows)
        out_of_fold = {name: np.full(len(rows), np.nan) for name in labels.heads}
        heads = []
        for fold in range(self._folds):
            # a synthetic post has the fold of the posts that it was made from, so it leaves with them
            held_out, inside = (folds == fold) & real, (folds != fold) & fitted
            head = fit_head(features[inside], labels.rows(inside), self._settings)
            for name, logits in head_logits(head, features[held_out], list(labels.heads)).items():
                out_of_fold[name][held_out] = logits
            progress.advance(fold + 1, self._folds, "folds")
            progress(f"{language}: fold {fold + 1} of {self._folds} fitted on {int(inside.sum())} posts")
            heads.append(head)
        if self._settings.final == "retrain":
            heads = [fit_head(features[fitted], labels.rows(fitted), self._settings)]
        learned = [name for name, logits in out_of_fold.items() if np.isfinite(logits[real]).all()]
        tensors = {f"{place}.{name}": value for place, head in enumerate(heads) for name, value in head.items()}
        tensors["out_of_fold"] = np.stack([out_of_fold[name][real] for name in learned])
        meta = {"settings": self.parameters, "models": len(heads), "fitted": list(labels.heads), "heads": learned}
        return self._save(
            language, whole, tensors, meta | {"encoder": encoder.identity, "precision": encoder.precision}
        )

    def score(
        self, language: str, ref: AdapterRef, posts: pd.DataFrame, progress: Progress | None = None
    ) -> pd.DataFrame:
        """Scores of all rows: the stored out-of-fold logits, and those of the adapter's final heads."""
        self._check(language, ref, training_fingerprint(posts, self._card))
        tensors, meta = load_adapter(self._root, ref)
        posts = real_posts(posts)
        if not meta["models"]:
            return self._scores(language, posts, {})
        others = (posts["fold"] < 0).to_numpy()
        final = self._final(tensors, meta, posts.loc[others, "text"].tolist(), progress)
        logits = {}
        for place, name in enumerate(meta["heads"]):
            scores = np.zeros(len(posts))
            scores[~others], scores[others] = tensors["out_of_fold"][place], final[name]
            logits[name] = {self._seed: scores}
        return self._scores(language, posts, logits)

    def release(self) -> None:
        """Give back the memory of the encoder and of the adapter that `logits` used last."""
        self._encoder, self._loaded = None, None

    def logits(self, language: str, ref: AdapterRef, texts: list[str], seeds: tuple[int, ...]) -> dict[str, Floats]:  # noqa: ARG002
        """Logits (texts,) of new texts by each head of the final models."""
        if self._loaded is None or self._loaded[0] != ref:
            self._check(language, ref)
            self._loaded = ref, *load_adapter(self._root, ref)
        # new texts are not kept: a home would grow with all that is ever asked
        return self._final(*self._loaded[1:], texts, keep=False)

    def _final(
        self,
        tensors: Tensors,
        meta: dict[str, Any],
        texts: list[str],
        progress: Progress | None = None,
        keep: bool = True,
    ) -> dict[str, Floats]:
        if not texts:
            return {name: np.zeros(0) for name in meta["heads"]}
        if self._ready(progress, meta["precision"]).identity != meta["encoder"]:
            raise InputError(
                f"the model {self._settings.model!r} of backbone {self.name!r} is not the one that the adapter was "
                f"fitted with: put it back, or train again with `polar run --force`."
            )
        features = self._embed(texts, progress, keep)
        found = []
        for place in range(meta["models"]):
            mark = f"{place}."
            head = {name.removeprefix(mark): value for name, value in tensors.items() if name.startswith(mark)}
            found.append(head_logits(head, features, meta["fitted"]))
        return {name: np.mean([one[name] for one in found], axis=0) for name in meta["heads"]}

    def _embed(self, texts: list[str], progress: Progress | None, keep: bool = True) -> Matrix:
        assert self._encoder is not None
        path = self._embeddings / cache_file(self._settings.encoding)
        advance: Callable[[float], None] | None = None
        if progress is not None:
            advance = lambda done: progress.advance(done, len(texts), "posts")  # noqa: E731
        return EmbeddingCache(self._encoder, path, ENCODED_TOGETHER, read_only=not keep).embed(texts, advance)

    def _ready(self, progress: Progress | None, precision: Precision | None = None) -> Encoder:
        """The encoder; for an adapter in the precision that it was fitted with, whatever this machine is fastest in."""
        encoding = self._settings.encoding
        wanted = Encoder(encoding._replace(precision=precision or encoding.precision), self._root / BASES, progress)
        if self._encoder is None or self._encoder.precision != wanted.precision:
            self._encoder = wanted
        return self._encoder

    def _labels(self, rows: pd.DataFrame) -> Labels:
        heads = {}
        for name, values in target_labels(rows, self._card).items():
            label = values.to_numpy(dtype=int)
            heads[str(name)] = Head(label, label[:, None].astype(float))
        if self._card.kind != "multiclass":  # which has no label of the whole post
            whole = rows["label"].to_numpy(dtype=int)
            finer = dict(self._card.auxiliary.groups)
            if MAIN_HEAD not in heads:
                finer = {MAIN_HEAD: ("label",)} | finer
            for name, columns in finer.items():
                known = rows[list(columns)].astype("Float64").to_numpy(dtype=float, na_value=np.nan)
                if columns and not np.isnan(known).all():
                    heads[name] = Head(whole, known, finer=True)
        return Labels(heads, _copies(rows))


def _copies(rows: pd.DataFrame) -> Ints:
    """A number for each post, its duplicates and the synthetic posts made from it, int64 (rows,)."""
    groups = duplicate_groups(rows)
    # synthetic posts are made from posts of train alone; dev may have the same ids
    train = (rows["split"] == "train").to_numpy()
    own = dict(zip(rows["id"][train], groups[train].tolist(), strict=True))
    parents = rows["parent_id"] if "parent_id" in rows else pd.Series(pd.NA, index=rows.index)
    pairs = zip(parents.fillna("").astype(str), groups.tolist(), strict=True)
    return np.array([own.get(parent, group) for parent, group in pairs], dtype=np.int64)
