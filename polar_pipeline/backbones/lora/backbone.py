"""The LoRA backbone: an adapter per fold, seed and language over a base that is loaded once, and a final one per seed.

Models that are done lie under `work`, so that a language that was interrupted goes on with the next one; the language's adapter
is written when all are done. What does not belong here: the loop over steps, and what a batch is.
"""

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef, check_provenance, load_adapter, save_adapter, verify_adapter
from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.bases import Bases, Place
from polar_pipeline.backbones.lora.figures import keep_figures, kept_figures
from polar_pipeline.backbones.lora.final import FinalModels, NotAsTrained
from polar_pipeline.backbones.lora.language import Language, seen_fingerprint
from polar_pipeline.backbones.lora.models import Job, train_models, training_figures
from polar_pipeline.backbones.lora.tables import Tensors, probe_tables, score_tables, texts_outside
from polar_pipeline.backbones.lora.work import Work
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.task.card import TaskCard

VERSION = 2  # raised when the same settings give other scores: older adapters are then refused
# how it is computed, not what: changing one of these trains nothing anew
_MEANS = {"device", "threads", "recompute", "together", "checkpoint_seconds", "languages"}


class LoraBackbone:
    """Adapters of a pretrained model, one per language."""

    def __init__(self, settings: LoraSettings, seed: int, folds: int, bases: Bases) -> None:
        self.name = settings.name
        chosen = settings.model_dump(mode="json", exclude=_MEANS)
        plain = {
            key: value if isinstance(value, str | int | float | bool) else str(value) for key, value in chosen.items()
        }
        self.parameters = {**plain, "seed": seed, "folds": folds, "version": VERSION}
        self._settings, self._seed, self._bases = settings, seed, bases
        self.config = fingerprint(self.parameters)

    def speaks(self, language: str) -> bool:
        """Whether the profile wants this backbone for the language."""
        return self._settings.languages == "all" or language in self._settings.languages

    def release(self) -> None:
        """Give the base's memory back."""
        self._bases.release()

    def train(
        self,
        language: str,
        posts: pd.DataFrame,
        card: TaskCard,
        root: Path,
        progress: Progress,
        force: bool = False,
        notes: dict[str, Any] | None = None,
    ) -> AdapterRef:
        """Train what is not trained yet, save the adapter, read it back, and score the posts outside folds while it is there.

        `notes` are kept with the adapter. Raises InputError for a model that cannot be loaded or trained, and for an adapter that gives other logits once it is read back.
        """
        data = seen_fingerprint(posts, card)
        if not self.speaks(language):
            nothing = {"seeds": np.zeros(0, dtype=np.int64), "out_of_fold": np.zeros((0, 0))}
            return self._save(root, nothing, {"base": ""}, language, data, {})
        ref = _kept(self._work(root, language, data, progress), root)
        if ref is not None:
            progress(f"{language}: trained before, nothing to do")
        else:
            slot = self._bases.slot(self._settings, root)
            work = self._work(root, language, data, progress)  # for the base that is loaded by now
            prepared = self._prepared(slot, posts, language)
            train_models(slot, [Job(model, work, progress) for model in prepared.models()], self._settings)
            ref = self._assemble(prepared, work, slot, root, language, data, notes or {})
            self._read_back(ref, work, root, posts, prepared, progress)
            keep_figures(root, ref, training_figures(prepared.models(), work))
            work.close(ref)
        progress.note(kept_figures(root, ref))
        return ref

    def score(
        self,
        language: str,
        ref: AdapterRef,
        posts: pd.DataFrame,
        card: TaskCard,
        root: Path,
        progress: Progress | None = None,
    ) -> pd.DataFrame:
        """Out-of-fold logits of the rows in folds, and the final models' of all others, one row per post and seed."""
        expected = seen_fingerprint(posts, card)
        check_provenance(ref, backbone=self.name, language=language, config=self.config, posts=expected)
        models = FinalModels(ref, root, self._settings, self._bases)
        rest = models.logits(texts_outside(posts), lambda place: self._prepared(place, posts, language), progress)
        return score_tables(posts, models.tensors, rest, self.name, language)

    def probes(self, ref: AdapterRef, posts: pd.DataFrame, root: Path) -> pd.DataFrame:
        """What the final models gave the rows that they were probed with; where dev is in folds, rows that they were trained on."""
        return probe_tables(posts, load_adapter(root, ref)[0], self.name, ref.language)

    def logits(self, language: str, ref: AdapterRef, texts: list[str], root: Path, seeds: tuple[int, ...]) -> Floats:
        """Mean logits (texts,) of new texts over the final models of `seeds`."""
        check_provenance(ref, backbone=self.name, language=language, config=self.config)
        return FinalModels(ref, root, self._settings, self._bases).mean(texts, seeds)

    def train_together(
        self, posts: dict[str, pd.DataFrame], card: TaskCard, root: Path, progress: Mapping[str, Progress]
    ) -> None:
        """Train models of several languages in one step each, where one language has fewer than `together`.

        They are left where `train` finds them, which also tells what is wrong with a language that is left out here. What one language
        gets depends on the others by rounding alone.
        """
        jobs: list[list[Job]] = []
        for language, table in posts.items():
            try:
                jobs.append(self._jobs(language, table, card, root, progress[language]))
            except InputError as error:
                progress[language](f"{language} is left out: {error}")
        jobs = [models for models in jobs if models]
        if jobs and min(map(len, jobs)) < self._settings.together:
            by_turns = itertools.chain.from_iterable(itertools.zip_longest(*jobs))
            slot = self._bases.slot(self._settings, root)
            train_models(slot, [job for job in by_turns if job is not None], self._settings)

    def _jobs(self, language: str, posts: pd.DataFrame, card: TaskCard, root: Path, progress: Progress) -> list[Job]:
        """What has to be trained for a language that is not finished."""
        data = seen_fingerprint(posts, card)
        if not self.speaks(language) or _kept(self._work(root, language, data, progress), root) is not None:
            return []
        prepared = self._prepared(self._bases.slot(self._settings, root), posts, language)
        work = self._work(root, language, data, progress)
        return [Job(model, work, progress) for model in prepared.models()]

    def _read_back(
        self, ref: AdapterRef, work: Work, root: Path, posts: pd.DataFrame, prepared: Language, progress: Progress
    ) -> None:
        """Before an adapter counts as done it has to be what it was, read from disk; from models that were saved otherwise it is not made again."""
        try:
            FinalModels(ref, root, self._settings, self._bases).logits(
                texts_outside(posts), lambda _: prepared, progress
            )
        except NotAsTrained:
            work.discard()
            raise

    def _prepared(self, place: Place, posts: pd.DataFrame, language: str) -> Language:
        return Language(posts, place.base, self._settings, language, self._seed)

    def _work(self, root: Path, language: str, data: str, say: Callable[[str], None]) -> Work:
        base = self._bases.identity(self._settings, root)
        return Work(root, self.name, language, fingerprint([self.config, data, base]), say)

    def _assemble(
        self, prepared: Language, work: Work, slot: Place, root: Path, language: str, data: str, notes: dict[str, Any]
    ) -> AdapterRef:
        """One folder of what the language's models are, and of what the folds' gave the rows that they held out."""
        seeds, models = self._settings.seeds, prepared.models()
        out_of_fold = np.zeros((len(seeds), len(prepared.rows.labels)))
        parts: dict[str, bytes] = {}
        probe: Tensors = {}
        for model in models:
            logits = work.logits(model.key)
            assert logits is not None  # all are finished
            if model.fold >= 0:
                out_of_fold[seeds.index(model.seed), prepared.held_out(model.fold)] = logits
            else:
                probe[f"probe.{model.key}"] = logits
            if model.fold < 0 or self._settings.final == "fold_average":
                parts |= {f"{model.key}/{name}": content for name, content in work.files(model.key).items()}
        tensors = {"seeds": np.array(seeds), "out_of_fold": out_of_fold[:, prepared.folded], **probe}
        keys = {
            str(seed): sorted({part.partition("/")[0] for part in parts if part.split("/")[0].endswith(f"seed-{seed}")})
            for seed in seeds
        }
        meta = {
            "settings": self.parameters,
            "base": slot.base.identity,
            "dtype": str(slot.base.dtype),
            "final": keys,
            "notes": notes,
        }
        return self._save(root, tensors, meta, language, data, parts)

    def _save(
        self, root: Path, tensors: Tensors, meta: dict[str, Any], language: str, data: str, parts: dict[str, bytes]
    ) -> AdapterRef:
        return save_adapter(
            root, tensors, meta, backbone=self.name, language=language, config=self.config, posts=data, parts=parts
        )


def _kept(work: Work, root: Path) -> AdapterRef | None:
    """The adapter of an earlier run, if it is still whole; one that was changed or removed is made again."""
    ref = work.ref()
    if ref is None:
        return None
    try:
        verify_adapter(root, ref)
    except InputError:
        if (root / ref.path).exists():
            raise
        work.forget()
        return None
    return ref
