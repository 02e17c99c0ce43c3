"""The asset of a backbone that is trained on all languages together; each language takes its share of it."""

import time

import dagster as dg
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.backbones.base import Progress, fitted_rows
from polar_pipeline.backbones.lora.pooled import PooledBackbone
from polar_pipeline.curation.curate import for_backbones
from polar_pipeline.defs.assets.backbones import RETRY, pool_of
from polar_pipeline.defs.assets.training import note_training
from polar_pipeline.defs.owners import OWNERS
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.step import StepContext
from polar_pipeline.defs.tracked import tracked_asset
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.tracking.base import TrackedRun


def pooled_asset(
    project: Project, backbone: PooledBackbone, settings: LoraSettings, keep: bool = False
) -> dg.AssetsDefinition:
    """`<backbone>_pooled_adapter`, without partitions. `keep`: whether a base model stays loaded between steps."""
    root = project.home.artifacts / "adapters"

    @tracked_asset(
        name=f"{backbone.name}_pooled_adapter",
        description=f"One adapter of backbone `{backbone.name}` for all languages, trained on all their posts.",
        group_name="backbones",
        owners=OWNERS,
        code_version=project.code_version("backbones", "folds", "backbones"),
        kinds={"safetensors"},
        io_manager_key="adapter_refs",
        retry_policy=RETRY,
        pool=pool_of(settings),
    )
    def pooled_adapter(context: StepContext, deduped_posts: dict[str, pd.DataFrame], run: TrackedRun) -> AdapterRef:
        absent = [code for code in project.profile.codes if code not in deduped_posts and backbone.speaks(code)]
        if absent:
            raise InputError(f"deduped_posts of {', '.join(absent)} are not there: materialize them first.")
        posts = {code: for_backbones(table) for code, table in deduped_posts.items()}
        started, progress = time.perf_counter(), Progress(context.log.info, run.measure)
        try:
            ref = backbone.train_all(posts, project.card, root, progress)
        finally:
            if not keep:
                backbone.release()
        rows = sum(int(fitted_rows(table).sum()) for code, table in posts.items() if backbone.speaks(code))
        note_training(context, run, backbone.parameters, ref, root, rows, time.perf_counter() - started, progress)
        return ref

    return pooled_adapter
