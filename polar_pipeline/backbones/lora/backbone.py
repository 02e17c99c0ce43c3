"""The LoRA backbones: an adapter per fold, seed and language over a base that is loaded once, and a final one per seed.

Finished models lie under `work`, so that an interrupted language goes on with the next; its adapter is written last.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef, Tensors, load_adapter
from polar_pipeline.backbones.base import Backbone, Progress, real_posts
from polar_pipeline.backbones.lora.base_model import heads_shape, score_tokens
from polar_pipeline.backbones.lora.checkpoints import Figures, ModelStore, load_figures, save_figures
from polar_pipeline.backbones.lora.dataset import LanguageDataset, TrainingTask, dataset_fingerprint, probe_rows
from polar_pipeline.backbones.lora.final_models import AdapterMismatch, FinalModels, probe_key, texts_outside_folds
from polar_pipeline.backbones.lora.loading import ModelCache
from polar_pipeline.backbones.lora.training import train_model
from polar_pipeline.backbones.lora.tunable import TunableModel
from polar_pipeline.corpus.folds import scored_posts
from polar_pipeline.corpus.labels import target_labels
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.task.card import MAIN_HEAD, TaskCard

VERSION = 2  # raised when the same settings give other scores: older adapters are then refused
# how and for which languages it is computed, which changes no number of a language: no reason to train again
NOT_IN_FINGERPRINT = {"device", "threads", "recompute", "checkpoint_seconds", "languages"}
NOT_IN_FINGERPRINT |= {"heads"}  # the finer labels that it stands for are, if any: older adapters stay what they are


class LoraBackbone(Backbone):
    """Adapters of a pretrained model, one per language."""

    def __init__(
        self, settings: LoraSettings, seed: int, folds: int, card: TaskCard, root: Path, models: ModelCache
    ) -> None:
        chosen = settings.model_dump(mode="json", exclude=NOT_IN_FINGERPRINT)
        plain = {
            key: value if isinstance(value, str | int | float | bool) else str(value) for key, value in chosen.items()
        }
        # finer labels that are learned beside the label, by group
        groups = card.auxiliary.groups if settings.heads == "all" else {}
        # a multiclass task has no label of the whole post: its first class takes that place
        self._main, *rest = card.targets if card.kind == "multiclass" else (MAIN_HEAD, *card.label_columns)
        self._groups = {name: (name,) for name in rest} | {name: labels for name, labels in groups.items() if labels}
        self._sizes = tuple(map(len, self._groups.values()))
        finer = {"finer_labels": str(self._groups), "finer_start": "base rates"} if self._groups else {}
        parameters = {**plain, **finer, "seed": seed, "folds": folds, "version": VERSION}
        super().__init__(settings.name, parameters, card, root, settings.languages)
        self.settings, self._seed, self._models = settings, seed, models

    def release(self) -> None:
        """Give the base's memory back."""
        self._models.release()

    def train(self, language: str, posts: pd.DataFrame, progress: Progress, force: bool = False) -> AdapterRef:
        """Train what is not trained yet, save the adapter, read it back, and score the posts outside folds.

        `force` trains all models again. Raises InputError for a model that cannot be loaded or trained, and for an
        adapter that gives other logits once it is read back.
        """
        if self.speaks(language):
            return self._train_or_reuse(language, posts, progress, force, {})
        return self._without_models(language, dataset_fingerprint(posts, self._card))

    def score(
        self, language: str, ref: AdapterRef, posts: pd.DataFrame, progress: Progress | None = None
    ) -> pd.DataFrame:
        """Out-of-fold logits of the rows in folds, and the final models' of all others, one row per post and seed."""
        self._check(language, ref, dataset_fingerprint(posts, self._card))
        own = self._final_models(ref)
        models = self._scoring_models(own)
        prepare = (lambda base: self._dataset(base, posts, language)) if models is own else None
        rest = models.logits(self._inputs(language, texts_outside_folds(posts)), prepare, progress)
        posts = scored_posts(real_posts(posts))
        inside = (posts["fold"] >= 0).to_numpy()
        logits: dict[int, Floats] = {}
        for place, seed in enumerate(own.seeds):
            logits[seed] = np.zeros((*rest.shape[1:-1], len(posts)))
            logits[seed][..., inside], logits[seed][..., ~inside] = own.tensors["out_of_fold"][place], rest[place]
        return self._scores_of_heads(language, posts, logits, own.meta)

    def probes(self, ref: AdapterRef, posts: pd.DataFrame) -> pd.DataFrame:
        """What the final models gave the probed rows; they were trained on those if dev is in folds."""
        tensors, meta = load_adapter(self._root, ref)
        found = {seed: tensors[key] for seed in tensors["seeds"].tolist() if (key := probe_key(seed)) in tensors}
        return self._scores_of_heads(ref.language, posts.iloc[probe_rows(posts)], found, meta)

    def logits(self, language: str, ref: AdapterRef, texts: list[str], seeds: tuple[int, ...]) -> dict[str, Floats]:
        """By head, the mean logits (texts,) of new texts over the final models of `seeds`."""
        self._check(language, ref)
        models = self._scoring_models(self._final_models(ref))
        return self._by_head(models.mean(self._inputs(language, texts), seeds), models.meta)

    def _inputs(self, language: str, texts: list[str]) -> list[str]:  # noqa: ARG002
        """Texts as the models read them."""
        return texts

    def _final_models(self, ref: AdapterRef) -> FinalModels:
        return FinalModels(ref, self._root, self.settings, self._models, self._sizes)

    def _by_head(self, logits: Floats, meta: dict[str, Any]) -> dict[str, Floats]:
        """Logits (posts,) by head, of (posts,) or (heads, posts), less the groups that an adapter could not learn."""
        heads = zip([self._main, *self._groups], np.atleast_2d(logits), strict=True)
        return {name: values for name, values in heads if name in [self._main, *meta.get("groups", [])]}

    def _scores_of_heads(
        self, language: str, posts: pd.DataFrame, logits: dict[int, Floats], meta: dict[str, Any]
    ) -> pd.DataFrame:
        heads: dict[str, dict[int, Floats]] = {}
        for seed, values in logits.items():
            for name, own in self._by_head(values, meta).items():
                heads.setdefault(name, {})[seed] = own
        return self._scores(language, posts, heads)

    def _scoring_models(self, own: FinalModels) -> FinalModels:
        """The models whose logits an adapter gives: its own, unless it refers to another adapter."""
        return own

    def _without_models(self, language: str, data: str) -> AdapterRef:
        nothing = {"seeds": np.zeros(0, dtype=np.int64), "out_of_fold": np.zeros((0, 0))}
        return self._save(language, data, nothing, {"base": ""}, {})

    def _train_or_reuse(
        self, language: str, posts: pd.DataFrame, progress: Progress, force: bool, notes: dict[str, Any]
    ) -> AdapterRef:
        """The language's adapter; `notes` are kept with one that is trained now."""
        data = dataset_fingerprint(posts, self._card)
        ref = None if force else self._finished(language, data, progress)
        if ref is not None:
            progress(f"{language}: trained before, nothing to do")
        else:
            ref = self._train(language, posts, data, progress, force, notes)
        progress.figures |= load_figures(self._root, ref)
        return ref

    def _finished(self, language: str, data: str, progress: Progress) -> AdapterRef | None:
        """The adapter of an earlier run, if it is still what was written; otherwise it is forgotten."""
        store = self._store(language, data, progress)
        ref = store.finished()
        if ref is None:
            return None
        try:
            self._check(language, ref, data)
            load_adapter(self._root, ref)
        except InputError:
            progress(f"{language}: adapter {ref.path} is damaged or gone, so it is trained again")
            store.forget_finished()
            return None
        return ref

    def _train(
        self, language: str, posts: pd.DataFrame, data: str, progress: Progress, force: bool, notes: dict[str, Any]
    ) -> AdapterRef:
        tunable = self._models.get(self.settings, self._root, self._sizes)
        store = self._store(language, data, progress)  # for the base that is loaded by now
        if force:
            store.forget_finished()
            store.discard_models()
        dataset = self._dataset(tunable, posts, language)
        self._train_models(tunable, dataset.models(), store, progress)
        tensors, meta, parts = self._assemble(dataset, store, tunable)
        ref = self._save(language, data, tensors, {**meta, "notes": notes}, parts)
        try:
            self._final_models(ref).logits(texts_outside_folds(posts), lambda _: dataset, progress, again=True)
        except AdapterMismatch:  # the next run should not assemble it of the same models
            store.discard_models()
            raise
        save_figures(self._root, ref, _training_figures(dataset.models(), store))
        store.set_finished(ref)
        return ref

    def _train_models(
        self, tunable: TunableModel, models: list[TrainingTask], store: ModelStore, progress: Progress
    ) -> None:
        """Train the models that are not finished, and keep each when it is done."""
        tokens = {model.key: model.tokens(self.settings) for model in models}
        finished = {model.key for model in models if store.logits(model.key) is not None}
        total, done = sum(tokens.values()), sum(tokens[key] for key in finished)
        progress.advance(done, total, "tokens")
        for model in models:
            if model.key in finished:
                progress(f"{model.title}: trained before")
                continue
            started, advance = time.perf_counter(), progress.advancing(done, total, "tokens")
            train_model(tunable, model, self.settings, store.checkpoint(model.key), progress, advance)
            self._keep(tunable, model, store, progress, started)
            done += tokens[model.key]
            progress.advance(done, total, "tokens")

    def _keep(
        self, tunable: TunableModel, model: TrainingTask, store: ModelStore, progress: Progress, started: float
    ) -> None:
        """Score what a model judges, and keep it. Raises InputError if a logit is not finite."""
        files, seconds = tunable.files(), time.perf_counter() - started
        logits = score_tokens(tunable.base, model.judged.tokens, self.settings.token_budget)
        if not np.isfinite(logits).all():
            raise InputError(
                f"{model.title} of backbone {self.name!r} gives logits that are no numbers: lower its learning_rate."
            )
        mark = f"{model.key}/"
        latest = {name.removeprefix(mark): value for name, value in progress.latest.items() if name.startswith(mark)}
        figures = {"seconds": seconds, **latest}
        store.save_model(model.key, files, logits, {key: value for key, value in figures.items() if np.isfinite(value)})

    def _dataset(self, tunable: TunableModel, posts: pd.DataFrame, language: str) -> LanguageDataset:
        weight = 1.0
        if self._card.kind == "multiclass":
            targets = target_labels(posts, self._card)
            posts = posts.drop(columns="label").join(targets).assign(label=targets[self._main])
            weight = float(len(targets.columns) - 1)  # all classes weigh the same
        return LanguageDataset(posts, tunable.base, self.settings, language, self._seed, self._groups, weight)

    def _store(self, language: str, data: str, progress: Progress) -> ModelStore:
        base = self._models.identity(self.settings, self._root, self._sizes)
        return ModelStore(self._root, self.name, language, fingerprint([self.config, data, base]), progress)

    def _assemble(
        self, dataset: LanguageDataset, store: ModelStore, tunable: TunableModel
    ) -> tuple[Tensors, dict[str, Any], dict[str, bytes]]:
        """What the adapter holds: the final models, and what the folds' models gave the rows that they held out."""
        seeds, average = self.settings.seeds, self.settings.final == "fold_average"
        out_of_fold = np.zeros((len(seeds), *heads_shape(self._sizes), len(dataset.rows.labels)))
        probe: dict[str, Floats] = {}
        parts: dict[str, bytes] = {}
        final: dict[str, list[str]] = {str(seed): [] for seed in seeds}
        for model in dataset.models():
            logits = store.logits(model.key)
            assert logits is not None  # all are finished
            if model.fold >= 0:
                out_of_fold[seeds.index(model.seed)][..., dataset.held_out(model.fold)] = logits
            else:
                probe[f"probe.{model.key}"] = logits
            if model.fold < 0 or average:
                final[str(model.seed)].append(model.key)
                parts |= {f"{model.key}/{name}": content for name, content in store.files(model.key).items()}
        tensors = {"seeds": np.array(seeds), "out_of_fold": out_of_fold[..., dataset.in_folds], **probe}
        meta = {
            "settings": self.parameters,
            "base": tunable.base.identity,
            "dtype": str(tunable.base.dtype),
            "final": {seed: sorted(keys) for seed, keys in final.items()},
        }
        if self._groups:
            meta["groups"] = dataset.learned_groups()
        return tensors, meta, parts


def _training_figures(models: list[TrainingTask], store: ModelStore) -> Figures:
    """Figures of each model, and the seconds of all; after a kill, only the seconds since."""
    by_model = {model.key: store.figures(model.key) for model in models}
    seconds = sum(figures.get("seconds", 0.0) for figures in by_model.values())
    named = {f"{key}/{name}": value for key, figures in by_model.items() for name, value in figures.items()}
    return {"train_seconds": seconds, **named}
