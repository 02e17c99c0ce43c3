"""`build_defs`: fresh definitions from a project. Tests swap parts with `resources`, without monkeypatching."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from polar_pipeline.backbones.lora.loading import ModelCache
from polar_pipeline.defs.assets.backbones import backbone_assets
from polar_pipeline.defs.assets.corpus import corpus_assets, release_source
from polar_pipeline.defs.assets.decision import decision_assets
from polar_pipeline.defs.assets.evidence import evidence_assets
from polar_pipeline.defs.assets.synthesis import synthesis_assets
from polar_pipeline.defs.automation import automation_sensor
from polar_pipeline.defs.io_managers import OutputsIOManager
from polar_pipeline.defs.jobs import jobs
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.orphans import owned_executor
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.resources import mlflow_resource
from polar_pipeline.defs.schedules import weekly_follow_up, weekly_retraining
from polar_pipeline.defs.sensors import close_killed_runs, close_orphaned_runs, observe_release
from polar_pipeline.defs.tracked_asset import nobody


def build_defs(
    project: Project, resources: Mapping[str, Any] | None = None, keep_bases: bool = False
) -> dg.Definitions:
    """Definitions of a project; `resources` replaces resources by key.

    `keep_bases`: base models stay loaded from step to step, for a process that has the GPU to itself.
    """
    profile, models, lineage = project.profile, ModelCache(), Lineage(project)
    found = jobs(project)
    return dg.Definitions(
        assets=[
            release_source(project),
            *corpus_assets(project, lineage),
            *synthesis_assets(project, lineage),
            *(
                asset
                for settings in profile.backbones
                for asset in backbone_assets(project, lineage, settings, models, keep_bases)
            ),
            *decision_assets(project, lineage),
            *evidence_assets(project, lineage),
        ],
        jobs=[*found.values()],
        schedules=[weekly_retraining(project, found)],
        sensors=[
            close_killed_runs,
            close_orphaned_runs(project.home),
            automation_sensor(),
            observe_release(project),
            *weekly_follow_up(project, found),
        ],
        # what is launched from the asset graph has no job of its own, and should not start a process per step either
        executor=owned_executor,
        resources={
            "tracker": mlflow_resource(project),
            "outputs": OutputsIOManager(project),
            "watcher": dg.ResourceDefinition.hardcoded_resource(nobody),
            **(resources or {}),
        },
    )
