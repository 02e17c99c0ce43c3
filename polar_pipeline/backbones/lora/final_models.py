"""The final models of a finished adapter, read from disk, and the logits that they give any text.

Models are compared with what they gave in training before they are trusted. Logits of posts that were scored once are
kept by adapter and texts: training has the base at hand, and scoring need not load it again.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef, load_adapter
from polar_pipeline.backbones.base import Progress, real_posts
from polar_pipeline.backbones.lora.base_model import Tokens, heads_shape, score_tokens
from polar_pipeline.backbones.lora.checkpoints import (
    Figures,
    kept_logits,
    load_figures,
    read_checked,
    save_figures,
    write_checked,
)
from polar_pipeline.backbones.lora.dataset import LanguageDataset
from polar_pipeline.backbones.lora.loading import ModelCache
from polar_pipeline.backbones.lora.tunable import TunableModel
from polar_pipeline.corpus.folds import scored_posts
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.storage.fingerprint import fingerprint

_EXACT = 1e-4  # in float32, the largest difference
# In bfloat16 another shape of batch or another GPU rounds otherwise. Measured on tiny models: rounding moves logits
# by at most 0.01 of their spread and keeps 0.99 of their order; another seed's adapter moves them by 0.02 to 1.8 and
# keeps at most 0.95.
_SHARE = 0.1  # the typical difference, in shares of the spread
_FLOOR = 0.02  # the same where there is next to no spread: some units in the last place of a logit of 1
_ORDER = 0.97  # rank correlation
_ENOUGH = 50  # posts whose order says something


class AdapterMismatch(InputError):
    """An adapter that gives other logits, read from disk, than its models gave when they were trained."""


class FinalModels:
    """The final models of one adapter. Raises InputError if the adapter's files are not those of `ref`."""

    def __init__(
        self, ref: AdapterRef, root: Path, settings: LoraSettings, models: ModelCache, groups: tuple[int, ...] = ()
    ) -> None:
        self._ref, self._root, self._settings, self._models, self._groups = ref, root, settings, models, groups
        self.tensors, self.meta = load_adapter(root, ref)
        self.seeds: list[int] = self.tensors["seeds"].tolist()

    def logits(
        self,
        texts: list[str],
        prepare: Callable[[TunableModel], LanguageDataset] | None = None,
        progress: Progress | None = None,
        again: bool = False,
    ) -> Floats:
        """Logits float64 (seeds, texts), kept for the next time; `again` computes them whatever is kept.

        With finer labels they are (seeds, heads, texts), as in all that follows.
        With `prepare`, the models are probed before they are trusted. Raises InputError if the base has other weights
        than in training, AdapterMismatch if a model is not what it was then.
        """
        if not texts or not self.seeds:
            return np.zeros(self._shape(texts))
        path = kept_logits(self._root, self._ref, fingerprint([self._ref.sha256, texts])[:16])
        progress = progress or Progress()
        found: Floats | None = None
        if path.exists() and not again:
            try:
                found = np.frombuffer(read_checked(path), dtype=np.float64).reshape(self._shape(texts))
            except InputError:
                progress(f"{self._ref.language}: the logits kept in {path} are damaged, so they are computed again")
        if found is None:
            tunable = self.model()
            if prepare is not None:
                self._probe(tunable, prepare(tunable))
            found, figures = self._score(tunable, texts, progress)
            write_checked(path, found.tobytes())
            save_figures(self._root, self._ref, figures, path.stem)
            rate = figures["score_tokens_per_second"]
            progress(
                f"{self._ref.language}: {len(self.seeds) * len(texts)} posts outside folds scored, {rate:,.0f} tokens/s"
            )
        progress.figures |= load_figures(self._root, self._ref, path.stem)
        return found

    def mean(self, texts: list[str], seeds: tuple[int, ...]) -> Floats:
        """Mean logits (texts,) of new texts over the final models of `seeds`, which are not kept."""
        if not texts:
            return np.zeros(self._shape(texts)[1:])
        found, _ = self._score(self.model(), texts, Progress())
        mean: Floats = found[[self.seeds.index(seed) for seed in seeds]].mean(axis=0)
        return mean

    def model(self) -> TunableModel:
        """The base that the adapter was trained on. Raises InputError if it has other weights by now."""
        tunable = self._models.get(self._settings, self._root, self._groups)
        if self.meta["base"] != tunable.base.identity:
            raise InputError(
                f"adapter {self._ref.path} was trained on other weights of {self._settings.model!r} "
                f"({self.meta['base'][:12]}) than are there now ({tunable.base.identity[:12]}): "
                f"name that revision, or materialize {self._ref.backbone}_adapter again."
            )
        return tunable

    def _shape(self, texts: list[str]) -> tuple[int, ...]:
        return (len(self.seeds), *heads_shape(self._groups), len(texts))

    def _score(self, tunable: TunableModel, texts: list[str], progress: Progress) -> tuple[Floats, Figures]:
        """Logits (seeds, texts), and how fast they were computed. A seed may have the mean of its folds' models."""
        rows = tunable.base.tokens(texts)
        keys = [self.meta["final"][str(seed)] for seed in self.seeds]
        done, total = 0, len(texts) * sum(map(len, keys))
        started = time.perf_counter()
        logits: Floats = np.zeros(self._shape(texts))
        for place, models in enumerate(keys):
            for key in models:
                found = self._score_one(tunable, key, rows, progress.advancing(done, total, "posts"))
                logits[place] += found
                done += len(texts)
            logits[place] /= len(models)
        seconds, tokens = time.perf_counter() - started, sum(map(len, rows)) * len(self.seeds)
        rates = {"score_tokens_per_second": tokens / seconds, "posts_per_second": len(keys) * len(texts) / seconds}
        return logits, {"score_seconds": seconds, **rates}

    def _score_one(
        self, tunable: TunableModel, key: str, rows: Tokens, advance: Callable[[float], None] | None = None
    ) -> Floats:
        tunable.load(self._root / self._ref.path / key)
        return score_tokens(tunable.base, rows, self._settings.token_budget, advance)

    def _probe(self, tunable: TunableModel, dataset: LanguageDataset) -> None:
        """Every model on disk scores again what it scored when it was trained."""
        saved = {key for keys in self.meta["final"].values() for key in keys}
        for model in dataset.models():
            if model.key not in saved:
                continue
            out_of_fold = self.tensors["out_of_fold"][self.seeds.index(model.seed)]
            then = (
                self.tensors[f"probe.{model.key}"] if model.fold < 0 else out_of_fold[..., dataset.folds == model.fold]
            )
            now = self._score_one(tunable, model.key, model.judged.tokens)
            heads = zip(np.atleast_2d(now), np.atleast_2d(then), strict=True)
            if not all(same_logits(*both, self.meta["dtype"]) for both in heads):
                raise AdapterMismatch(
                    f"{model.key} of adapter {self._ref.path} gives logits that differ by "
                    f"{np.abs(now - then).max():.2g} from those in training: it was not saved as it was; "
                    f"remove it and materialize {self._ref.backbone}_adapter for {self._ref.language} again."
                )


def same_logits(now: Floats, then: Floats, dtype: str) -> bool:
    """Whether logits float (posts,) are the same up to rounding; `dtype` is the base's, such as `torch.bfloat16`.

    In bfloat16 another adapter of the same posts can come near in value if it separates the labels well, but it puts
    posts of one label into another order. NaN is never the same.
    """
    from scipy.stats import spearmanr

    gaps = np.abs(now - then)
    if dtype == "torch.float32":
        return bool(gaps.max() <= _EXACT)
    spread = float(then.std())
    if not float(np.sqrt(np.mean(gaps**2))) <= max(_SHARE * spread, _FLOOR):
        return False
    ordered = len(then) >= _ENOUGH and spread > 5 * _FLOOR
    return not ordered or float(spearmanr(now, then).statistic) >= _ORDER


def probe_key(seed: int) -> str:
    """The tensor that holds what a seed's final model gave the probed rows."""
    return f"probe.final-seed-{seed}"


def texts_outside_folds(posts: pd.DataFrame) -> list[str]:
    """Texts of the real posts outside folds that need scores."""
    real = scored_posts(real_posts(posts))
    texts: list[str] = real.loc[(real["fold"] < 0).to_numpy(), "text"].tolist()
    return texts
