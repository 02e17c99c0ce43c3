"""Each backbone's pair of assets, from one factory: its adapter, and the scores that the adapter gives every post.

A backbone that is trained on several languages together has a third, of whose adapters each language takes its share.
"""

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.backbones.base import Backbone, Progress, fitted_rows
from polar_pipeline.backbones.factory import make_backbone
from polar_pipeline.backbones.lora.loading import ModelCache
from polar_pipeline.backbones.lora.pooled import PooledBackbone
from polar_pipeline.corpus.folds import scored_posts
from polar_pipeline.corpus.labels import target_labels
from polar_pipeline.corpus.posts import REAL
from polar_pipeline.curation.curate import for_backbones
from polar_pipeline.decision.screening import unsound
from polar_pipeline.decision.targets import target_scores
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.metadata import frame_metadata, table
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.tracked_asset import StepContext, reporting, tracked_asset
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import BackboneSettings, EncoderSettings, LoraSettings
from polar_pipeline.settings.yaml_files import validated
from polar_pipeline.storage.outputs import Check
from polar_pipeline.tracking.base import Scalar, TrackedRun

GPU_POOL = "gpu"
_MEANS = {"tokens_per_second": "train_tokens_per_second", "loss": "train_loss"}  # other names for means over models
# A training step that was killed from outside is worth a second try; bad input is not retried (see tracked_asset).
RETRY = dg.RetryPolicy(max_retries=1, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
TRAIN_OPTIONS = {
    "force": dg.Field(bool, default_value=False, description="Train again even where a finished adapter is found."),
    "epochs": dg.Field(
        dg.Noneable(int), default_value=None, description="Other epochs for this run; null takes the profile's."
    ),
}


def backbone_assets(
    project: Project, lineage: Lineage, settings: BackboneSettings, models: ModelCache, keep: bool = False
) -> list[dg.AssetsDefinition]:
    """`<backbone>_adapter` and `<backbone>_dev_probabilities`, and `<backbone>_pooled_adapter` where there is one.

    `models` is shared by all backbones; `keep` says whether a base model stays loaded between steps.
    """
    backbone = make_backbone(settings, project.profile, project.card, project.home, models)
    variants = _Variants(project, settings, models, backbone)
    name, root = backbone.name, project.home.adapters

    @tracked_asset(
        lineage,
        group_name="backbones",
        **_training_needs(settings),
        name=f"{name}_adapter",
        ins={"pooled": f"{name}_pooled_adapter"} if isinstance(backbone, PooledBackbone) else {},
        description=f"What backbone `{name}` scores one language with: fitted models or imported scores, in a folder.",
        kinds={"safetensors"},
        retry_policy=RETRY,
    )
    def adapter(context: StepContext, deduped_posts: pd.DataFrame, run: TrackedRun, **pooled: AdapterRef) -> AdapterRef:
        posts, progress = for_backbones(deduped_posts), reporting(context, name, run)
        started, force = time.perf_counter(), bool(context.options.get("force"))
        used = variants.as_trained(f"{name}_pooled_adapter", None) if pooled else variants.asked_for(context)
        try:
            if isinstance(used, PooledBackbone):
                ref = used.share(context.partition_key, posts, pooled["pooled"], progress)
            else:
                ref = used.train(context.partition_key, posts, progress, force=force)
        finally:
            if not keep and context.last:
                used.release()
        rows = int(fitted_rows(posts).sum())
        _note_training(context, run, backbone.parameters, ref, root, rows, time.perf_counter() - started, progress)
        context.files += [file for file in (root / ref.path).rglob("*") if file.is_file()]
        return ref

    def check_scores(
        context: StepContext, scores: pd.DataFrame, deduped_posts: pd.DataFrame, ref: AdapterRef
    ) -> Iterator[Check]:
        yield from scores_checks(project, backbone, settings, context.partition_key, scores, deduped_posts, ref)

    @tracked_asset(
        lineage,
        group_name="backbones",
        name=f"{name}_dev_probabilities",
        description=f"Logits of backbone `{name}`: out of fold for rows in folds, from the final model for others.",
        ins={"ref": f"{name}_adapter"},
        kinds={"pandas", "parquet"},
        pool=pool_of(settings),
        checks=check_scores,
        check_names=SCORE_CHECKS,
    )
    def dev_probabilities(
        context: StepContext, deduped_posts: pd.DataFrame, ref: AdapterRef, run: TrackedRun
    ) -> pd.DataFrame:
        started, progress = time.perf_counter(), reporting(context, name, None)
        trained = variants.as_trained(f"{name}_adapter", context.partition_key)
        try:
            scores = trained.score(context.partition_key, ref, for_backbones(deduped_posts), progress)
        finally:
            if not keep:
                trained.release()
        seconds = time.perf_counter() - started
        # logits may have been computed when the adapter was trained: then what it took is what it took there
        figures = {"score_seconds": seconds, "posts_per_second": len(scores) / seconds} | progress.figures
        run.log(params={"adapter_sha256": ref.sha256}, metrics={"posts": len(scores), **figures})
        context.add_output_metadata({**frame_metadata(scores), **figures})
        return scores

    across = [_pooled_asset(project, lineage, variants, keep)] if isinstance(backbone, PooledBackbone) else []
    return [*across, adapter, dev_probabilities]


@dataclass(frozen=True)
class _Variants:
    """A backbone, and the same one with the epochs that an operator asked of one run, which its adapter remembers."""

    project: Project
    settings: BackboneSettings
    models: ModelCache
    backbone: Backbone

    def asked_for(self, context: StepContext) -> Backbone:
        """The backbone that this run is to train; other epochs than the profile's are noted with its output."""
        epochs = context.options.get("epochs")
        if epochs is not None:
            context.changed = {"backbone": {"epochs": epochs}}
        return self._with_epochs(epochs)

    def as_trained(self, asset: str, language: str | None) -> Backbone:
        """The backbone as it was when a stored adapter was trained."""
        found = Lineage(self.project).outputs.provenance(asset, language)
        return self._with_epochs(found.settings["backbone"].get("epochs") if found else None)

    def _with_epochs(self, epochs: int | None) -> Backbone:
        if not isinstance(self.settings, LoraSettings) or epochs in (None, self.settings.epochs):
            return self.backbone
        settings = validated(self.settings.model_dump() | {"epochs": epochs}, LoraSettings, "run config")
        project = self.project
        return make_backbone(settings, project.profile, project.card, project.home, self.models)


def _pooled_asset(project: Project, lineage: Lineage, variants: _Variants, keep: bool) -> dg.AssetsDefinition:
    root, backbone, settings = project.home.adapters, variants.backbone, variants.settings
    scope = getattr(settings, "scope", "")

    @tracked_asset(
        lineage,
        name=f"{backbone.name}_pooled_adapter",
        description=f"What backbone `{backbone.name}` learns from several languages together: "
        + ("an adapter for each family." if scope == "family" else "one adapter for all."),
        group_name="pooled",
        kinds={"safetensors"},
        retry_policy=RETRY,
        pool=pool_of(settings),
        config_schema=TRAIN_OPTIONS,
    )
    def pooled_adapter(context: StepContext, deduped_posts: dict[str, pd.DataFrame], run: TrackedRun) -> AdapterRef:
        absent = [code for code in project.codes if code not in deduped_posts and backbone.speaks(code)]
        if absent:
            raise InputError(f"deduped_posts of {', '.join(absent)} are not there: materialize them first.")
        posts = {code: for_backbones(table) for code, table in deduped_posts.items()}
        started, progress = time.perf_counter(), reporting(context, backbone.name, run)
        used = variants.asked_for(context)
        assert isinstance(used, PooledBackbone)
        try:
            ref = used.train_all(posts, progress, bool(context.options.get("force")))
        finally:
            if not keep:
                backbone.release()
        rows = sum(int(fitted_rows(table).sum()) for code, table in posts.items() if backbone.speaks(code))
        _note_training(context, run, backbone.parameters, ref, root, rows, time.perf_counter() - started, progress)
        for part in used.adapters(ref):
            context.files += [file for file in (root / part.path).rglob("*") if file.is_file()]
        return ref

    return pooled_adapter


SCORE_CHECKS = {
    "complete": "Exactly one score per head and seed for every post; none for a language that was left out.",
    "finite": "No score is NaN or infinite.",
    "not_constant": "The out-of-fold scores of each head differ from post to post.",
    "sound": "No final model collapsed, was inverted, puts all posts into one class, or falls below its folds on dev.",
}


def scores_checks(
    project: Project,
    backbone: Backbone,
    settings: BackboneSettings,
    language: str,
    scores: pd.DataFrame,
    deduped_posts: pd.DataFrame,
    ref: AdapterRef,
) -> Iterator[Check]:
    """Every post has exactly one finite score per head and seed, and models that were trained here are sound.

    A warning where they were imported, or constant: the decision leaves broken models out.
    """
    trained_on = for_backbones(deduped_posts)
    posts = scored_posts(trained_on[trained_on["source"] == REAL])
    wanted = Counter(zip(posts["split"], posts["id"], strict=True))
    models = {
        key: Counter(zip(rows["split"], rows["id"], strict=True)) for key, rows in scores.groupby(["head", "seed"])
    }
    spoken = backbone.speaks(language)
    whole = bool(models) == spoken and all(got == wanted for got in models.values())
    infinite = int((~np.isfinite(scores["logit"])).sum())
    spreads = scores[scores["fold"] >= 0].groupby("head")["logit"].std()
    spread = float(spreads.min())
    flat = spoken and spread <= 1e-6
    text = f"{len(scores)} scores of {len(models)} models do not match {len(posts)} posts"
    yield Check(name="complete", complaint="" if whole else text)
    yield Check(name="finite", complaint=f"{infinite} scores are not finite" if infinite else "")
    text = f"standard deviation of the logits of head {spreads.idxmin()} is {spread:.2g}" if flat else ""
    yield Check(name="not_constant", complaint=text, warning=True)
    # a model that was trained here can be trained again; scores from elsewhere are what they are, and are screened
    broken: list[str] = []
    if whole and spoken:
        probes = backbone.probes(ref, trained_on)
        transductive, truth = project.profile.decision.transductive, target_labels(posts, project.card)
        for name, labels in truth.items():
            mine, probed = (target_scores(table, str(name), project.card) for table in (scores, probes))
            found = unsound(posts.assign(label=labels), mine, language, transductive, probed)
            broken += [f"{name}: {text}" for text in found] if project.card.labels else found
    yield Check(name="sound", complaint="; ".join(broken), warning=not isinstance(settings, LoraSettings))


def pool_of(settings: BackboneSettings) -> str | None:
    """The pool of steps that use a GPU: one at a time."""
    if isinstance(settings, EncoderSettings):
        return GPU_POOL if settings.device == "cuda" else None  # most encode on a CPU, several languages at once
    return GPU_POOL if isinstance(settings, LoraSettings) and settings.device != "cpu" else None


def _training_needs(settings: BackboneSettings) -> Mapping[str, Any]:
    """What Dagster has to know of a training: one step at a time on the GPU, and a backfill in one run, which loads the
    base once.
    """
    needs: dict[str, Any] = {"pool": pool_of(settings)}
    if isinstance(settings, LoraSettings):
        needs["config_schema"] = TRAIN_OPTIONS
        if settings.scope == "language":
            needs["backfill_policy"] = dg.BackfillPolicy.single_run()
    return needs


def _note_training(
    context: StepContext,
    run: TrackedRun,
    parameters: dict[str, Scalar],
    ref: AdapterRef,
    root: Path,
    rows: int,
    seconds: float,
    progress: Progress,
) -> None:
    """Note an adapter, of one language or of all, in the tracked run and in its materialization.

    `rows` posts were fitted on in `seconds`; figures in `progress`, of an earlier training, take precedence.
    """
    figures = {"train_seconds": seconds, **progress.figures}
    models = _models(figures)
    whole = {name: value for name, value in figures.items() if "/" not in name} | _means(models)
    run.log(params=parameters, metrics={"train_posts": rows, **whole})
    run.log(params={"adapter_sha256": ref.sha256, "config_fingerprint": ref.config_fingerprint})
    run.log(metrics={f"end/{name}": value for name, value in figures.items() if "/" in name})
    run.log_data(f"posts-{ref.language}", ref.posts_fingerprint)
    found: dict[str, Any] = {"path": dg.MetadataValue.path(root / ref.path), "sha256": ref.sha256, "train_posts": rows}
    if models:
        columns = sorted({name for mine in models.values() for name in mine})
        found["models"] = table(
            [{"model": key} | {name: mine.get(name) for name in columns} for key, mine in models.items()]
        )
    context.add_output_metadata(found | whole)


def _models(figures: dict[str, float]) -> dict[str, dict[str, float]]:
    """Figures of each model, by its key."""
    models: dict[str, dict[str, float]] = {}
    for name, value in figures.items():
        key, slash, figure = name.rpartition("/")
        if slash:
            models.setdefault(key, {})[figure] = value
    return models


def _means(models: dict[str, dict[str, float]]) -> dict[str, float]:
    """The mean over models of every figure that models have but seconds."""
    names = {name for mine in models.values() for name in mine} - {"seconds"}
    values = {name: [mine[name] for mine in models.values() if name in mine] for name in sorted(names)}
    return {_MEANS.get(name, name): sum(mine) / len(mine) for name, mine in values.items()}
