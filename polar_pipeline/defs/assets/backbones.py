"""Each backbone's pair of assets, from one factory: its adapter, and the scores that the adapter gives every post."""

import time
from typing import Any

import dagster as dg
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.backbones.base import Backbone, Progress, fitted_rows
from polar_pipeline.backbones.lora.pooled import PooledBackbone
from polar_pipeline.curation.curate import for_backbones
from polar_pipeline.defs.assets.training import note_training
from polar_pipeline.defs.metadata import frame_metadata
from polar_pipeline.defs.owners import OWNERS
from polar_pipeline.defs.partitions import language_partitions
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.step import StepContext
from polar_pipeline.defs.tracked import tracked_asset
from polar_pipeline.settings.backbones import BackboneSettings, LoraSettings
from polar_pipeline.tracking.base import TrackedRun

GPU_POOL = "gpu"
# A training step that was killed from outside is worth a second try; bad input is not retried (see tracked_asset).
RETRY = dg.RetryPolicy(max_retries=1, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)


def backbone_assets(
    project: Project, backbone: Backbone, settings: BackboneSettings, keep: bool = False
) -> list[dg.AssetsDefinition]:
    """`<backbone>_adapter` and `<backbone>_dev_probabilities`. `keep`: whether a base model stays loaded between steps."""
    card, name, root = project.card, backbone.name, project.home.artifacts / "adapters"
    shared: dict[str, Any] = {
        "partitions_def": language_partitions(project.profile),
        "group_name": "backbones",
        "owners": OWNERS,
        "code_version": project.code_version("backbones", "folds", "backbones"),
    }

    @tracked_asset(
        **shared,
        **_training_needs(settings),
        name=f"{name}_adapter",
        ins={"pooled": dg.AssetIn(f"{name}_pooled_adapter")} if isinstance(backbone, PooledBackbone) else {},
        description=f"What backbone `{name}` scores one language with: fitted models, or imported scores, in a content-addressed folder.",
        kinds={"safetensors"},
        io_manager_key="adapter_refs",
        retry_policy=RETRY,
    )
    def adapter(context: StepContext, deduped_posts: pd.DataFrame, run: TrackedRun, **pooled: AdapterRef) -> AdapterRef:
        posts, progress = for_backbones(deduped_posts), Progress(context.log.info, run.measure)
        started = time.perf_counter()
        try:
            if isinstance(backbone, PooledBackbone):
                ref = backbone.share(context.partition_key, posts, card, root, pooled["pooled"], progress)
            else:
                ref = backbone.train(context.partition_key, posts, card, root, progress)
        finally:
            if not keep and context.last:
                backbone.release()
        rows = int(fitted_rows(posts).sum())
        note_training(context, run, backbone.parameters, ref, root, rows, time.perf_counter() - started, progress)
        return ref

    @tracked_asset(
        **shared,
        name=f"{name}_dev_probabilities",
        description=f"Logits of backbone `{name}`: out of fold for the rows in folds, from the final model for all others.",
        ins={"ref": dg.AssetIn(f"{name}_adapter")},
        kinds={"pandas", "parquet"},
        io_manager_key="tables",
        pool=pool_of(settings),
    )
    def dev_probabilities(
        context: StepContext, deduped_posts: pd.DataFrame, ref: AdapterRef, run: TrackedRun
    ) -> pd.DataFrame:
        started, progress = time.perf_counter(), Progress(context.log.info)
        try:
            scores = backbone.score(context.partition_key, ref, for_backbones(deduped_posts), card, root, progress)
        finally:
            if not keep:
                backbone.release()
        seconds = time.perf_counter() - started
        # logits may have been computed when the adapter was trained: then what it took is what it took there
        figures = {"score_seconds": seconds, "posts_per_second": len(scores) / seconds} | progress.figures
        run.log(params={"adapter_sha256": ref.sha256}, metrics={"posts": len(scores), **figures})
        context.add_output_metadata({**frame_metadata(scores), **figures})
        return scores

    return [adapter, dev_probabilities]


def pool_of(settings: BackboneSettings) -> str | None:
    """The pool of steps that use a GPU: one at a time."""
    return GPU_POOL if isinstance(settings, LoraSettings) and settings.device != "cpu" else None


def _training_needs(settings: BackboneSettings) -> dict[str, Any]:
    """What Dagster has to know of a training: one step at a time on the GPU, and a backfill in one run, which loads the base once."""
    needs: dict[str, Any] = {"pool": pool_of(settings)}
    if isinstance(settings, LoraSettings) and settings.scope == "language":
        needs["backfill_policy"] = dg.BackfillPolicy.single_run()
    return needs
