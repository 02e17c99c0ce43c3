"""The LoRA backbone: an adapter per fold, seed and language over a base that is loaded once, and a final one per seed.

Models that are done lie under `work`, so that a language that was interrupted goes on with the next one; the language's adapter
is written when all are done. What does not belong here: the loop over steps, and what a batch is.
"""

import tempfile
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef, check_provenance, load_adapter, save_adapter, verify_adapter
from polar_pipeline.backbones.base import Progress, real_posts, scores_table
from polar_pipeline.backbones.lora.adapter import Slot
from polar_pipeline.backbones.lora.bases import Bases, Place
from polar_pipeline.backbones.lora.final import FinalModels
from polar_pipeline.backbones.lora.joint import train_adapters
from polar_pipeline.backbones.lora.language import Language, Model, seen_fingerprint
from polar_pipeline.backbones.lora.scoring import score_tokens
from polar_pipeline.backbones.lora.training import train_adapter
from polar_pipeline.backbones.lora.work import Work
from polar_pipeline.corpus.folds import scored_posts
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.task.backbones import LoraSettings
from polar_pipeline.task.card import TaskCard

VERSION = 2  # raised when the same settings give other scores: older adapters are then refused
# how it is computed, not what: changing one of these trains nothing anew
_MEANS = {"device", "threads", "recompute", "together", "checkpoint_seconds", "languages"}

Tensors = dict[str, np.typing.NDArray[Any]]


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
        notes: dict[str, Any] | None = None,
    ) -> AdapterRef:
        """Train what is not trained yet, save the adapter, read it back, and score the posts outside folds while it is there.

        `notes` are kept with the adapter. Raises InputError for a model that cannot be loaded or trained, and for an adapter that gives other logits once it is read back.
        """
        data = seen_fingerprint(posts, card)
        if not self.speaks(language):
            nothing = {"seeds": np.zeros(0, dtype=np.int64), "out_of_fold": np.zeros((0, 0))}
            return self._save(root, nothing, {"base": ""}, language, data, {})
        slot = self._bases.slot(self._settings, root)
        work = self._work(slot, root, language, data)
        ref = _kept(work, root)
        if ref is None:
            prepared = self._prepared(slot, posts, language)
            self._train_models(slot, [(model, work) for model in prepared.models()], progress)
            ref = self._assemble(prepared, work, slot, root, language, data, notes or {})
            # before it counts as done it has to be what it was, read from disk
            FinalModels(ref, root, self._settings, self._bases).logits(
                texts_outside(posts), lambda _: prepared, progress
            )
            work.close(ref)
        else:
            progress(f"{language}: trained before, nothing to do")
        return ref

    def score(self, ref: AdapterRef, posts: pd.DataFrame, card: TaskCard, root: Path) -> pd.DataFrame:
        """Out-of-fold logits of the rows in folds, and the final models' of all others, one row per post and seed."""
        expected = seen_fingerprint(posts, card)
        check_provenance(ref, backbone=self.name, language=ref.language, config=self.config, posts=expected)
        tensors, _ = load_adapter(root, ref)
        rest = FinalModels(ref, root, self._settings, self._bases).logits(
            texts_outside(posts), lambda place: self._prepared(place, posts, ref.language)
        )
        return score_tables(posts, tensors, rest, self.name, ref.language)

    def logits(self, ref: AdapterRef, texts: list[str], root: Path, seeds: tuple[int, ...]) -> Floats:
        """Mean logits (texts,) of new texts over the final models of `seeds`."""
        models = FinalModels(ref, root, self._settings, self._bases)
        found = models.logits(texts)
        mean: Floats = found[[models.seeds.index(seed) for seed in seeds]].mean(axis=0)
        return mean

    def train_together(self, posts: dict[str, pd.DataFrame], card: TaskCard, root: Path, progress: Progress) -> None:
        """Train models of several languages in one step each, where one language has fewer than `together`.

        They are left where `train` finds them. What one language gets depends on the others by rounding alone.
        """
        jobs: list[list[tuple[Model, Work]]] = []
        for language, table in posts.items():
            slot = self._bases.slot(self._settings, root)
            work = self._work(slot, root, language, seen_fingerprint(table, card))
            if self.speaks(language) and _kept(work, root) is None:
                prepared = self._prepared(slot, table, language)
                jobs.append([(model, work) for model in prepared.models()])
        if jobs and min(map(len, jobs)) < self._settings.together:
            # the first of each, then the second of each ..., however many a language has
            turns = [job for models in zip_longest(*jobs) for job in models if job]
            self._train_models(slot, turns, progress)

    def _train_models(self, slot: Place, jobs: list[tuple[Model, Work]], progress: Progress) -> None:
        """Train what is not finished, so many at once as the settings say; groups are the same whatever is finished."""
        size = self._settings.together
        for group in (jobs[start : start + size] for start in range(0, len(jobs), size)):
            if all(work.logits(model.key) is not None for model, work in group):
                progress(f"{', '.join(model.fit.title for model, _ in group)}: trained before")
            elif len(group) > 1 and isinstance(slot, Slot):
                self._train_group(slot, group, progress)
            else:
                ((model, work),) = group
                train_adapter(slot, model.fit, self._settings, work.checkpoint(model.key), progress)
                self._finish(slot, model, work, slot.files())

    def _train_group(self, slot: Slot, group: list[tuple[Model, Work]], progress: Progress) -> None:
        first, work = group[0]
        checkpoint = work.checkpoint(f"{first.key}-and-{len(group) - 1}")
        fits = [model.fit._replace(origin=work.key) for model, work in group]
        found = train_adapters(slot, fits, self._settings, checkpoint, progress)
        for (model, work), files in zip(group, found, strict=True):
            with tempfile.TemporaryDirectory() as folder:
                for name, content in files.items():
                    (Path(folder) / name).write_bytes(content)
                slot.load(Path(folder))
            self._finish(slot, model, work, files)
        checkpoint.unlink(missing_ok=True)

    def _finish(self, slot: Place, model: Model, work: Work, files: dict[str, bytes]) -> None:
        work.finish(model.key, files, score_tokens(slot.base, model.judged.tokens, self._settings.token_budget))

    def _prepared(self, place: Place, posts: pd.DataFrame, language: str) -> Language:
        return Language(posts, place.base, self._settings, language, self._seed)

    def _work(self, slot: Place, root: Path, language: str, data: str) -> Work:
        return Work(root, self.name, language, fingerprint([self.config, data, slot.base.identity]))

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


def score_tables(posts: pd.DataFrame, tensors: Tensors, rest: Floats, backbone: str, language: str) -> pd.DataFrame:
    """The scores table of all real posts: `tensors` has seeds and out_of_fold, `rest` (seeds, posts outside folds)."""
    posts = scored_posts(real_posts(posts))
    inside = (posts["fold"] >= 0).to_numpy()
    tables = [scores_table(posts.iloc[:0], np.zeros(0), backbone=backbone, seed=0, language=language)]
    for place, seed in enumerate(tensors["seeds"].tolist()):
        logits: Floats = np.zeros(len(posts))
        logits[inside], logits[~inside] = tensors["out_of_fold"][place], rest[place]
        tables.append(scores_table(posts, logits, backbone=backbone, seed=seed, language=language))
    return pd.concat(tables[1:] or tables, ignore_index=True)


def texts_outside(posts: pd.DataFrame) -> list[str]:
    """Texts of the real posts outside folds that need scores."""
    real = scored_posts(real_posts(posts))
    texts: list[str] = real.loc[(real["fold"] < 0).to_numpy(), "text"].tolist()
    return texts


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
