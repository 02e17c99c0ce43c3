"""`build_defs`: fresh definitions from a project. Tests swap parts with `resources`, without monkeypatching."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
from upath import UPath

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.backbones.factory import make_backbone
from polar_pipeline.backbones.lora.model_cache import ModelCache
from polar_pipeline.backbones.lora.pooled import PooledBackbone
from polar_pipeline.corpus.audit import Audit
from polar_pipeline.decision.record import Decision
from polar_pipeline.defs.assets.backbones import backbone_assets
from polar_pipeline.defs.assets.corpus import corpus_assets
from polar_pipeline.defs.assets.decision import decision_assets
from polar_pipeline.defs.assets.evidence import evidence_assets
from polar_pipeline.defs.assets.pooled import pooled_asset
from polar_pipeline.defs.assets.synthesis import synthesis_assets
from polar_pipeline.defs.checks import audit_checks, deduped_posts_checks, raw_posts_checks, scores_checks
from polar_pipeline.defs.io_managers import ParquetIOManager, RecordIOManager, TextIOManager
from polar_pipeline.defs.jobs import jobs
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.resources import make_tracker
from polar_pipeline.defs.schedules import weekly_retraining
from polar_pipeline.defs.sensors import automation_sensor, close_killed_runs
from polar_pipeline.settings.backbones import LoraSettings


def build_defs(
    project: Project, resources: Mapping[str, Any] | None = None, keep_bases: bool = False
) -> dg.Definitions:
    """Definitions of a project; `resources` replaces resources by key.

    `keep_bases`: base models stay loaded from step to step, for a process that has the GPU to itself.
    """
    profile, models = project.profile, ModelCache()
    backbones = [make_backbone(settings, profile, models) for settings in profile.backbones]
    language_job, report_job, *others = jobs(profile)
    return dg.Definitions(
        assets=[
            *corpus_assets(project),
            *synthesis_assets(project),
            *(
                asset
                for backbone, settings in zip(backbones, profile.backbones, strict=True)
                for asset in backbone_assets(project, backbone, settings, keep_bases)
            ),
            *(
                pooled_asset(project, backbone, settings, keep_bases)
                for backbone, settings in zip(backbones, profile.backbones, strict=True)
                if isinstance(backbone, PooledBackbone) and isinstance(settings, LoraSettings)
            ),
            *decision_assets(project),
            *evidence_assets(project),
        ],
        asset_checks=[
            raw_posts_checks(project),
            audit_checks(project),
            deduped_posts_checks(project),
            *(
                scores_checks(project, backbone, settings)
                for backbone, settings in zip(backbones, profile.backbones, strict=True)
            ),
        ],
        jobs=[language_job, report_job, *others],
        schedules=[weekly_retraining(project, language_job)],
        sensors=[close_killed_runs, automation_sensor()],
        # what is launched from the asset graph has no job of its own, and should not start a process per step either
        executor=dg.in_process_executor,
        resources={**_resources(project), **(resources or {})},
    )


def _resources(project: Project) -> dict[str, Any]:
    base = UPath(project.home.artifacts)
    return {
        "tracker": make_tracker(project),
        "tables": ParquetIOManager(base),
        "audits": RecordIOManager(base, Audit),
        "adapter_refs": RecordIOManager(base, AdapterRef),
        "decisions": RecordIOManager(base, Decision),
        "paths": TextIOManager(base),
    }
