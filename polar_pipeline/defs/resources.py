"""Resources: the tracker. What does not belong here: paths and settings, which the definitions close over."""

import os
from pathlib import Path

import dagster as dg

from polar_pipeline.defs.project import Project
from polar_pipeline.tracking.runs import MlflowTracker

MLFLOW_PORT, DAGSTER_PORT = 5000, 3000


class TrackerResource(dg.ConfigurableResourceFactory[MlflowTracker]):
    """Gives assets an MLflow tracker; it connects when a step first opens a run."""

    database: str
    artifacts: str
    experiment: str
    ui: str
    dagster_ui: str

    def create_resource(self, context: dg.InitResourceContext) -> MlflowTracker:  # noqa: ARG002 - Dagster's signature
        """The plain tracker object."""
        return MlflowTracker(Path(self.database), Path(self.artifacts), self.experiment, self.ui, self.dagster_ui)


def tracker_resource(project: Project) -> TrackerResource:
    """The tracker of a project's home. $POLAR_MLFLOW_URL and $POLAR_DAGSTER_URL say where links lead."""
    return TrackerResource(
        database=str(project.home.mlflow_database),
        artifacts=str(project.home.artifacts),
        experiment=project.card.name,
        ui=os.environ.get("POLAR_MLFLOW_URL", f"http://127.0.0.1:{MLFLOW_PORT}"),
        dagster_ui=os.environ.get("POLAR_DAGSTER_URL", f"http://127.0.0.1:{DAGSTER_PORT}"),
    )


def make_tracker(project: Project) -> MlflowTracker:
    """The same tracker outside of a Dagster run."""
    return tracker_resource(project).create_resource(dg.build_init_resource_context())
