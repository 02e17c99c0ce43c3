"""The final models of an adapter, read from disk: the logits that they give any text, and whether they are what was trained.

Logits of the texts that were scored once are kept by adapter and texts, because training has the base at hand and scoring need not
load it again. What does not belong here: training, and rows in folds.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from polar_pipeline.backbones.artifacts import AdapterRef, load_adapter
from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.agreement import agree
from polar_pipeline.backbones.lora.base_model import Tokens
from polar_pipeline.backbones.lora.bases import Bases, Place
from polar_pipeline.backbones.lora.figures import keep_figures, kept_figures
from polar_pipeline.backbones.lora.language import Language
from polar_pipeline.backbones.lora.scoring import score_tokens
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.storage.fingerprint import fingerprint


class NotAsTrained(InputError):
    """An adapter that gives other logits, read from disk, than its models gave when they were trained."""


class FinalModels:
    """One language's. Raises InputError when the adapter's files are not those of `ref`."""

    def __init__(self, ref: AdapterRef, root: Path, settings: LoraSettings, bases: Bases) -> None:
        self._ref, self._root, self._settings, self._bases = ref, root, settings, bases
        self.tensors, self.meta = load_adapter(root, ref)
        self.seeds: list[int] = self.tensors["seeds"].tolist()

    def logits(
        self,
        texts: list[str],
        prepare: Callable[[Place], Language] | None = None,
        progress: Progress | None = None,
    ) -> Floats:
        """Logits float64 (seeds, texts), kept for the next time. Where `prepare` is given, the models are probed with the language's posts before they are trusted.

        Raises InputError when the base is another than the one that was trained on, or a model is not what it was in training.
        """
        from safetensors.numpy import save

        if not texts or not self.seeds:
            return np.zeros((len(self.seeds), len(texts)))
        path, progress = self._kept(texts), progress or Progress()
        if path.exists():
            found = _read(path)
        else:
            slot = self.place()
            if prepare is not None:
                self._probe(slot, prepare(slot))
            found, figures = self._scored(slot, texts)
            write_atomic(path, save({"logits": found}))
            keep_figures(self._root, self._ref, figures, path.stem)
            rate = figures["score_tokens_per_second"]
            progress(f"{self._ref.language}: {found.size} posts outside folds scored, {rate:,.0f} tokens/s")
        progress.note(kept_figures(self._root, self._ref, path.stem))
        return found

    def mean(self, texts: list[str], seeds: tuple[int, ...]) -> Floats:
        """Mean logits (texts,) of new texts over the final models of `seeds`; they are not kept, or every text ever scored would be."""
        if not texts:
            return np.zeros(0)
        found, _ = self._scored(self.place(), texts)
        mean: Floats = found[[self.seeds.index(seed) for seed in seeds]].mean(axis=0)
        return mean

    def _scored(self, slot: Place, texts: list[str]) -> tuple[Floats, dict[str, float]]:
        """Logits (seeds, texts), and how fast they came."""
        rows = slot.base.tokens(texts)
        started = time.perf_counter()
        found: Floats = np.stack([self._mean(slot, rows, seed) for seed in self.seeds])
        seconds = time.perf_counter() - started
        tokens = sum(map(len, rows)) * len(self.seeds)
        return found, {
            "score_seconds": seconds,
            "score_tokens_per_second": tokens / seconds,
            "posts_per_second": found.size / seconds,
        }

    def place(self) -> Place:
        """The base that the adapter was trained on. Raises InputError when it is another by now."""
        place = self._bases.slot(self._settings, self._root)
        if self.meta["base"] != place.base.identity:
            raise InputError(
                f"adapter {self._ref.path} was trained on other weights of {self._settings.model!r} ({self.meta['base'][:12]}) than are "
                f"there now ({place.base.identity[:12]}): name that revision, or materialize {self._ref.backbone}_adapter again."
            )
        return place

    def _mean(self, slot: Place, rows: Tokens, seed: int) -> Floats:
        """Of one seed: its final model's, or the mean of its folds' models."""
        found = []
        for key in self.meta["final"][str(seed)]:
            slot.load(self._root / self._ref.path / key)
            found.append(score_tokens(slot.base, rows, self._settings.token_budget))
        mean: Floats = np.mean(found, axis=0)
        return mean

    def _probe(self, slot: Place, prepared: Language) -> None:
        """Every model that lies there scores again what it scored when it was trained."""
        saved = {key for keys in self.meta["final"].values() for key in keys}
        folded = prepared.folds_of_folded
        for model in prepared.models():
            if model.key not in saved:
                continue
            place = self.seeds.index(model.seed)
            then = (
                self.tensors[f"probe.{model.key}"]
                if model.fold < 0
                else self.tensors["out_of_fold"][place, folded == model.fold]
            )
            slot.load(self._root / self._ref.path / model.key)
            now = score_tokens(slot.base, model.judged.tokens, self._settings.token_budget)
            if not agree(now, then, self.meta["dtype"]):
                gap = np.abs(now - then).max()
                raise NotAsTrained(
                    f"{model.key} of adapter {self._ref.path} gives logits that differ by {gap:.2g} from those in training: it was not saved "
                    f"as it was; remove it and materialize {self._ref.backbone}_adapter for {self._ref.language} again."
                )

    def _kept(self, texts: list[str]) -> Path:
        key = fingerprint([self._ref.sha256, texts])
        return self._root / "scored" / self._ref.backbone / self._ref.language / f"{key[:16]}.safetensors"


def _read(path: Path) -> Floats:
    """Logits that were kept. Raises InputError when the file is damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        found: Floats = load_file(path)["logits"]
    except (SafetensorError, KeyError) as error:
        raise InputError(
            f"the logits kept in {path} are damaged ({error}): remove the file, they are then computed again."
        ) from error
    return found
