"""One adapter for several languages: all of them, or a family's; each language takes its share of it."""

import numpy as np
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef, load_adapter
from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.backbone import LoraBackbone
from polar_pipeline.backbones.lora.dataset import dataset_fingerprint, probe_rows
from polar_pipeline.backbones.lora.final_models import FinalModels, probe_key, texts_outside_folds
from polar_pipeline.corpus.posts import REAL
from polar_pipeline.errors import InputError
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.task.languages import language as registered

ALL = "all"  # the language of a pooled adapter; that of a family's is the family


class PooledBackbone(LoraBackbone):
    """One adapter for all languages, or for each family: what one language's posts teach serves the others.

    Each post begins with its language. A language's own adapter is a reference to the one that it was trained in, and
    its share of the out-of-fold logits.
    """

    def train_all(self, posts: dict[str, pd.DataFrame], progress: Progress, force: bool = False) -> AdapterRef:
        """Train on the posts of all languages that it should speak; `force` trains what is there again.

        With families, each has an adapter, and what is returned has no models and refers to those.
        """
        groups: dict[str, dict[str, pd.DataFrame]] = {}
        for code in sorted(filter(self.speaks, posts)):
            groups.setdefault(self._group(code), {})[code] = posts[code]
        if self.settings.scope == "pooled":
            return self._train_group(ALL, groups.get(ALL, {}), progress, force)
        sizes = [(group, sum(map(len, tables.values()))) for group, tables in sorted(groups.items())]
        families, seconds = {}, 0.0
        for place, (group, tables) in enumerate(sorted(groups.items())):
            own = _within(progress, sizes, place)
            families[group] = self._train_group(group, tables, own, force).model_dump(mode="json")
            seconds += own.figures.pop("train_seconds", 0.0)
            progress.figures |= {f"{group}/{name}": value for name, value in own.figures.items() if "/" in name}
        progress.figures["train_seconds"] = seconds
        data = fingerprint([families[group]["posts_fingerprint"] for group in families])
        return self._save(ALL, data, {"seeds": np.zeros(0, dtype=np.int64)}, {"families": families})

    def adapters(self, pooled: AdapterRef) -> list[AdapterRef]:
        """What `train_all` returned, and the adapters that it refers to."""
        _, meta = load_adapter(self._root, pooled)
        return [pooled, *map(AdapterRef.model_validate, meta.get("families", {}).values())]

    def share(self, language: str, posts: pd.DataFrame, pooled: AdapterRef, progress: Progress) -> AdapterRef:
        """A language's adapter: a reference to the one of all or of its family, and its own out-of-fold logits.

        Raises InputError if that was trained with other settings or on other posts of the language.
        """
        data = dataset_fingerprint(posts, self._card)
        if not self.speaks(language):
            return self._without_models(language, data)
        group = {ref.language: ref for ref in self.adapters(pooled)}.get(self._group(language), pooled)
        models = self._final_models(group)
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
        mine = models.tensors["out_of_fold"][..., before : before + note["folded"]]
        models.logits(self._inputs(language, texts_outside_folds(posts)), progress=progress)
        tensors = {"seeds": models.tensors["seeds"], "out_of_fold": mine}
        if self.settings.final == "retrain":
            # the pooled adapter was probed with posts of a few languages; each language is judged by its own
            probed = models.logits(self._inputs(language, posts["text"].iloc[probe_rows(posts)].tolist()))
            tensors |= {probe_key(seed): logits for seed, logits in zip(models.seeds, probed, strict=True)}
        meta = {"settings": self.parameters, "pooled": group.model_dump(mode="json")}
        meta |= {"groups": models.meta["groups"]} if self._groups else {}
        return self._save(language, data, tensors, meta)

    def train(self, language: str, posts: pd.DataFrame, progress: Progress, force: bool = False) -> AdapterRef:  # noqa: ARG002
        """Not possible for one language alone. Raises InputError."""
        raise InputError(
            f"backbone {self.name!r} is trained on several languages together: materialize {self.name}_pooled_adapter."
        )

    def _group(self, language: str) -> str:
        """The name of the adapter that a language's posts are trained in."""
        return registered(language).family_key if self.settings.scope == "family" else ALL

    def _train_group(self, group: str, posts: dict[str, pd.DataFrame], progress: Progress, force: bool) -> AdapterRef:
        tagged = [table.assign(text=self._inputs(code, table["text"].tolist())) for code, table in posts.items()]
        notes = {
            code: {"posts": dataset_fingerprint(table, self._card), "folded": _folded(table)}
            for code, table in posts.items()
        }
        return self._train_or_reuse(group, pd.concat(tagged, ignore_index=True), progress, force, notes)

    def _inputs(self, language: str, texts: list[str]) -> list[str]:
        return [tag(language, text) for text in texts]

    def _scoring_models(self, own: FinalModels) -> FinalModels:
        """Those of the pooled adapter that the language's refers to."""
        pooled = own.meta.get("pooled")
        return self._final_models(AdapterRef.model_validate(pooled)) if pooled else own


def _within(progress: Progress, sizes: list[tuple[str, int]], place: int) -> Progress:
    """Progress of one of several trainings, of which names and numbers of posts are given.

    Its figures are told apart by its name; how much work the others are is estimated from their posts.
    """
    group, size = sizes[place]
    before, after = (sum(number for _, number in some) / size for some in (sizes[:place], sizes[place + 1 :]))

    def advance(done: float, total: float, unit: str) -> None:
        earlier = round(before * total)
        progress.advance(earlier + done, earlier + total + round(after * total), unit)

    def measure(step: int, values: dict[str, float]) -> None:
        progress.measure(step, {f"{group}/{name}": value for name, value in values.items()})

    return Progress(progress, measure, advance)


def tag(language: str, text: str) -> str:
    """The text after the English name of its language."""
    return f"[{registered(language).name}] {text}"


def _folded(posts: pd.DataFrame) -> int:
    """How many out-of-fold logits a language has."""
    return int(((posts["fold"] >= 0) & (posts["source"] == REAL)).sum())
