"""One adapter for all languages: what one language's posts teach serves the others. Each post begins with its language.

A language's own adapter is then a reference to the pooled one and its share of the out-of-fold logits.
"""

import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.backbone import LoraBackbone
from polar_pipeline.backbones.lora.dataset import dataset_fingerprint, probe_rows
from polar_pipeline.backbones.lora.final_models import FinalModels, probe_key, texts_outside_folds
from polar_pipeline.corpus.posts import REAL
from polar_pipeline.errors import InputError
from polar_pipeline.task.languages import language as registered

ALL = "all"  # the language of the pooled adapter


class PooledBackbone(LoraBackbone):
    """A pretrained model with one adapter for all languages of the profile."""

    def train_all(self, posts: dict[str, pd.DataFrame], progress: Progress, force: bool = False) -> AdapterRef:
        """Train one adapter on the posts of all languages that it should speak; `force` trains it again."""
        spoken = {code: posts[code] for code in sorted(posts) if self.speaks(code)}
        tagged = [table.assign(text=self._inputs(code, table["text"].tolist())) for code, table in spoken.items()]
        notes = {
            code: {"posts": dataset_fingerprint(table, self._card), "folded": _folded(table)}
            for code, table in spoken.items()
        }
        return self._train_or_reuse(ALL, pd.concat(tagged, ignore_index=True), progress, force, notes)

    def share(self, language: str, posts: pd.DataFrame, pooled: AdapterRef, progress: Progress) -> AdapterRef:
        """A language's adapter: the pooled one, and its out-of-fold logits of this language.

        Raises InputError if the pooled one was trained with other settings or on other posts of the language.
        """
        data = dataset_fingerprint(posts, self._card)
        if not self.speaks(language):
            return self._without_models(language, data)
        models = self._final_models(pooled)
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
        models.logits(self._inputs(language, texts_outside_folds(posts)), progress=progress)
        tensors = {"seeds": models.tensors["seeds"], "out_of_fold": mine}
        if self.settings.final == "retrain":
            # the pooled adapter was probed with posts of a few languages; each language is judged by its own
            probed = models.logits(self._inputs(language, posts["text"].iloc[probe_rows(posts)].tolist()))
            tensors |= {probe_key(seed): logits for seed, logits in zip(models.seeds, probed, strict=True)}
        meta = {"settings": self.parameters, "pooled": pooled.model_dump(mode="json")}
        return self._save(language, data, tensors, meta)

    def train(self, language: str, posts: pd.DataFrame, progress: Progress, force: bool = False) -> AdapterRef:  # noqa: ARG002
        """Not possible for one language alone. Raises InputError."""
        raise InputError(
            f"backbone {self.name!r} is trained on all languages together: materialize {self.name}_pooled_adapter."
        )

    def _inputs(self, language: str, texts: list[str]) -> list[str]:
        return [tag(language, text) for text in texts]

    def _scoring_models(self, own: FinalModels) -> FinalModels:
        """Those of the pooled adapter that a language's `own` refers to."""
        pooled = own.meta.get("pooled")
        return self._final_models(AdapterRef.model_validate(pooled)) if pooled else own


def tag(language: str, text: str) -> str:
    """The text after the English name of its language."""
    return f"[{registered(language).name}] {text}"


def _folded(posts: pd.DataFrame) -> int:
    """How many out-of-fold logits a language has."""
    return int(((posts["fold"] >= 0) & (posts["source"] == REAL)).sum())
