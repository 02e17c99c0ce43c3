"""The LoRA backbone: an adapter per fold, seed and language over a base that is loaded once, and a final one per seed.

Models that are done lie under `work`, so that a language that was interrupted goes on with the next one; the language's adapter
is written when all are done. What does not belong here: the loop over steps, and what a batch is.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef, check_provenance, load_adapter, save_adapter, verify_adapter
from polar_pipeline.backbones.base import Progress, real_posts, scores_table
from polar_pipeline.backbones.lora.adapter import Slot
from polar_pipeline.backbones.lora.bases import Bases
from polar_pipeline.backbones.lora.hot import read_hot, write_hot
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

VERSION = 1  # raised when the same settings give other scores: older adapters are then refused
_SAME = {
    "torch.float32": 1e-4,
    "torch.bfloat16": 0.05,
}  # how far logits of one adapter may differ between two processes
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
        self._config = fingerprint(self.parameters)

    def speaks(self, language: str) -> bool:
        """Whether the profile wants this backbone for the language."""
        return self._settings.languages == "all" or language in self._settings.languages

    def release(self) -> None:
        """Give the base's memory back."""
        self._bases.release()

    def train(self, language: str, posts: pd.DataFrame, card: TaskCard, root: Path, progress: Progress) -> AdapterRef:
        """Train what is not trained yet, save the adapter, read it back, and score the posts outside folds while it is there.

        Raises InputError for a model that cannot be loaded or trained, and for an adapter that gives other logits once it is read back.
        """
        data = seen_fingerprint(posts, card)
        if not self.speaks(language):
            return self._save(root, {"seeds": np.zeros(0, dtype=np.int64)}, {}, language, data, {})
        slot = self._bases.slot(self._settings, root)
        work = Work(root, self.name, language, fingerprint([self._config, data, slot.base.identity]))
        ref = _kept(work, root)
        if ref is None:
            prepared = Language(posts, slot.base, self._settings, language, self._seed)
            for model in prepared.models():
                self._train_model(slot, model, work, progress)
            ref = self._assemble(prepared, work, slot, root, language, data)
            work.close(ref)
        else:
            progress(f"{language}: trained before, nothing to do")
        self._score_rest(ref, posts, root, progress)
        return ref

    def score(self, ref: AdapterRef, posts: pd.DataFrame, card: TaskCard, root: Path) -> pd.DataFrame:
        """Out-of-fold logits of the rows in folds, and the final models' of all others, one row per post and seed."""
        expected = seen_fingerprint(posts, card)
        check_provenance(ref, backbone=self.name, language=ref.language, config=self._config, posts=expected)
        tensors, _ = load_adapter(root, ref)
        rest = self._score_rest(ref, posts, root, Progress())
        posts = scored_posts(real_posts(posts))
        inside = (posts["fold"] >= 0).to_numpy()
        tables = []
        for place, seed in enumerate(tensors["seeds"].tolist()):
            logits: Floats = np.zeros(len(posts))
            logits[inside], logits[~inside] = tensors["out_of_fold"][place], rest[place]
            tables.append(scores_table(posts, logits, backbone=self.name, seed=seed, language=ref.language))
        nothing = scores_table(posts.iloc[:0], np.zeros(0), backbone=self.name, seed=0, language=ref.language)
        return pd.concat(tables, ignore_index=True) if tables else nothing

    def logits(self, ref: AdapterRef, texts: list[str], root: Path, seeds: tuple[int, ...]) -> Floats:
        """Mean logits (texts,) of new texts over the final models of `seeds`."""
        _, meta = load_adapter(root, ref)
        slot = self._slot_of(meta, root, ref)
        rows = slot.base.tokens(texts)
        found = [self._final(slot, root / ref.path, meta, seed, rows) for seed in seeds]
        mean: Floats = np.mean(found, axis=0)
        return mean

    def _train_model(self, slot: Slot, model: Model, work: Work, progress: Progress) -> None:
        if work.logits(model.key) is not None:
            progress(f"{model.fit.title}: trained before")
            return
        train_adapter(slot, model.fit, self._settings, work.checkpoint(model.key), progress)
        work.finish(model.key, slot.files(), self._tokens_scored(slot, model.judged.tokens))

    def _assemble(self, prepared: Language, work: Work, slot: Slot, root: Path, language: str, data: str) -> AdapterRef:
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
        meta = {"settings": self.parameters, "base": slot.base.identity, "dtype": str(slot.base.dtype), "final": keys}
        return self._save(root, tensors, meta, language, data, parts)

    def _save(
        self, root: Path, tensors: Tensors, meta: dict[str, Any], language: str, data: str, parts: dict[str, bytes]
    ) -> AdapterRef:
        return save_adapter(
            root, tensors, meta, backbone=self.name, language=language, config=self._config, posts=data, parts=parts
        )

    def _score_rest(self, ref: AdapterRef, posts: pd.DataFrame, root: Path, progress: Progress) -> Floats:
        """Logits (seeds, posts outside folds) of the final models, from disk; kept, because training has the base at hand."""
        real = scored_posts(real_posts(posts))
        texts = real.loc[(real["fold"] < 0).to_numpy(), "text"].tolist()
        tensors, meta = load_adapter(root, ref)
        if not texts or not len(tensors["seeds"]):
            return np.zeros((len(tensors["seeds"]), len(texts)))
        kept = read_hot(root, ref, texts)
        if kept is not None:
            return kept
        slot = self._slot_of(meta, root, ref)
        self._probe(slot, ref, posts, tensors, meta, root)
        rows = slot.base.tokens(texts)
        found = np.stack([self._final(slot, root / ref.path, meta, int(seed), rows) for seed in tensors["seeds"]])
        write_hot(root, ref, texts, found)
        progress(f"{ref.language}: {found.size} posts outside folds scored")
        return found

    def _probe(
        self, slot: Slot, ref: AdapterRef, posts: pd.DataFrame, tensors: Tensors, meta: dict[str, Any], root: Path
    ) -> None:
        """Refuse an adapter that from disk is not what it was in training. Raises InputError."""
        prepared = Language(posts, slot.base, self._settings, ref.language, self._seed)
        rows = prepared.rows.take(prepared.probe).tokens
        for name in [name for name in tensors if name.startswith("probe.")]:
            slot.load(verify_adapter(root, ref) / name.removeprefix("probe."))
            gap = float(np.abs(self._tokens_scored(slot, rows) - tensors[name]).max())
            if not gap <= _SAME[meta["dtype"]]:
                raise InputError(
                    f"adapter {ref.path} gives logits that differ by {gap:.2g} from those in training: it was not saved as it was, "
                    f"or the base is another; remove it and materialize {ref.backbone}_adapter for {ref.language} again."
                )

    def _slot_of(self, meta: dict[str, Any], root: Path, ref: AdapterRef) -> Slot:
        """The base that the adapter was trained on. Raises InputError when it is another by now."""
        slot = self._bases.slot(self._settings, root)
        if meta["base"] != slot.base.identity:
            raise InputError(
                f"adapter {ref.path} was trained on other weights of {self._settings.model!r} ({meta['base'][:12]}) than are there now "
                f"({slot.base.identity[:12]}): name that revision, or materialize {ref.backbone}_adapter for {ref.language} again."
            )
        return slot

    def _final(self, slot: Slot, folder: Path, meta: dict[str, Any], seed: int, rows: list[Any]) -> Floats:
        """Logits of one seed's final model, or the mean of its folds' models."""
        found = []
        for key in meta["final"][str(seed)]:
            slot.load(folder / key)
            found.append(self._tokens_scored(slot, rows))
        mean: Floats = np.mean(found, axis=0)
        return mean

    def _tokens_scored(self, slot: Slot, rows: list[Any]) -> Floats:
        return score_tokens(slot.base, rows, self._settings.token_budget)


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
