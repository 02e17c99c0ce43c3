"""One adapter for all languages: what one language's posts teach serves the others. Each post begins with its language.

A language's own adapter is then a reference to the pooled one and its share of the out-of-fold logits.
"""

from pathlib import Path

import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef, check_provenance, load_adapter, save_adapter
from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.backbone import LoraBackbone
from polar_pipeline.backbones.lora.dataset import dataset_fingerprint, probe_rows
from polar_pipeline.backbones.lora.final_models import (
    FinalModels,
    Tensors,
    probe_key,
    probe_tables,
    score_tables,
    texts_outside_folds,
)
from polar_pipeline.corpus.posts import REAL
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.languages import language as registered

ALL = "all"  # the language of the pooled adapter


class PooledBackbone(LoraBackbone):
    """A pretrained model with one adapter for all languages of the profile."""

    def train_all(
        self, posts: dict[str, pd.DataFrame], card: TaskCard, root: Path, progress: Progress, force: bool = False
    ) -> AdapterRef:
        """Train one adapter on the posts of all languages that it should speak; `force` trains it again."""
        spoken = {code: posts[code] for code in sorted(posts) if self.speaks(code)}
        tagged = [table.assign(text=[tag(code, text) for text in table["text"]]) for code, table in spoken.items()]
        notes = {
            code: {"posts": dataset_fingerprint(table, card), "folded": _folded(table)}
            for code, table in spoken.items()
        }
        whole = pd.concat(tagged, ignore_index=True)
        return self._train_or_reuse(ALL, whole, dataset_fingerprint(whole, card), root, progress, force, notes)

    def share(
        self, language: str, posts: pd.DataFrame, card: TaskCard, root: Path, pooled: AdapterRef, progress: Progress
    ) -> AdapterRef:
        """A language's adapter: the pooled one, and its out-of-fold logits of this language.

        Raises InputError if the pooled one was trained with other settings or on other posts of the language.
        """
        data = dataset_fingerprint(posts, card)
        if not self.speaks(language):
            return self._without_models(language, data, root)
        models = FinalModels(pooled, root, self._settings, self._models)
        note = models.meta.get("notes", {}).get(language)
        if (
            (pooled.backbone, pooled.language, pooled.config_fingerprint) != (self.name, ALL, self.config)
            or note is None
            or note["posts"] != data
        ):
            raise InputError(
                f"{self.name}_pooled_adapter was trained with other settings or on other posts of {language}: "
                f"materialize it again first."
            )
        before = sum(other["folded"] for code, other in models.meta["notes"].items() if code < language)
        mine = models.tensors["out_of_fold"][:, before : before + note["folded"]]
        models.logits([tag(language, text) for text in texts_outside_folds(posts)], progress=progress)
        return save_adapter(
            root,
            {"seeds": models.tensors["seeds"], "out_of_fold": mine, **self._probes(models, language, posts)},
            {"settings": self.parameters, "pooled": pooled.model_dump(mode="json")},
            backbone=self.name,
            language=language,
            config=self.config,
            posts=data,
        )

    def train(
        self,
        language: str,  # noqa: ARG002
        posts: pd.DataFrame,  # noqa: ARG002
        card: TaskCard,  # noqa: ARG002
        root: Path,  # noqa: ARG002
        progress: Progress,  # noqa: ARG002
        force: bool = False,  # noqa: ARG002
    ) -> AdapterRef:
        """Not possible for one language alone. Raises InputError."""
        raise InputError(
            f"backbone {self.name!r} is trained on all languages together: materialize {self.name}_pooled_adapter."
        )

    def score(
        self,
        language: str,
        ref: AdapterRef,
        posts: pd.DataFrame,
        card: TaskCard,
        root: Path,
        progress: Progress | None = None,
    ) -> pd.DataFrame:
        """As from an adapter of the language's own."""
        expected = dataset_fingerprint(posts, card)
        check_provenance(ref, backbone=self.name, language=language, config=self.config, posts=expected)
        tensors, meta = load_adapter(root, ref)
        if not len(tensors["seeds"]):
            return score_tables(posts.iloc[:0], tensors, tensors["out_of_fold"][:, :0], self.name, language)
        texts = [tag(language, text) for text in texts_outside_folds(posts)]
        rest = self._pooled(meta, root).logits(texts, progress=progress)
        return score_tables(posts, tensors, rest, self.name, language)

    def probes(self, ref: AdapterRef, posts: pd.DataFrame, root: Path) -> pd.DataFrame:
        """What the pooled models give this language's own probed rows."""
        return probe_tables(posts, load_adapter(root, ref)[0], self.name, ref.language)

    def logits(self, language: str, ref: AdapterRef, texts: list[str], root: Path, seeds: tuple[int, ...]) -> Floats:
        """Mean logits (texts,) of new texts over the final models of `seeds`."""
        check_provenance(ref, backbone=self.name, language=language, config=self.config)
        return self._pooled(load_adapter(root, ref)[1], root).mean([tag(language, text) for text in texts], seeds)

    def _probes(self, models: FinalModels, language: str, posts: pd.DataFrame) -> Tensors:
        """The pooled adapter was probed with posts of a few languages only; each language is judged by its own."""
        if self._settings.final == "fold_average":
            return {}
        texts = posts["text"].iloc[probe_rows(posts)].tolist()
        found = models.logits([tag(language, text) for text in texts])
        return {probe_key(seed): logits for seed, logits in zip(models.seeds, found, strict=True)}

    def _pooled(self, meta: dict[str, object], root: Path) -> FinalModels:
        return FinalModels(AdapterRef.model_validate(meta["pooled"]), root, self._settings, self._models)


def tag(language: str, text: str) -> str:
    """The text after the English name of its language."""
    return f"[{registered(language).name}] {text}"


def _folded(posts: pd.DataFrame) -> int:
    """How many out-of-fold logits a language has."""
    return int(((posts["fold"] >= 0) & (posts["source"] == REAL)).sum())
