"""Resources: the tracker, a plain object. What does not belong here: paths and settings, which the definitions close over."""

import os

from polar_pipeline.defs.project import Project
from polar_pipeline.tracking.runs import MlflowTracker


def make_tracker(project: Project) -> MlflowTracker:
    """The MLflow tracker of a project's home; it connects when a step first opens a run.

    $POLAR_MLFLOW_URL and $POLAR_DAGSTER_URL say where links lead; `polar ui` sets them.
    """
    return MlflowTracker(
        project.home.mlflow_database,
        project.home.mlflow_artifacts.parent,
        experiment=project.card.name,
        ui=os.environ.get("POLAR_MLFLOW_URL", "http://127.0.0.1:5000"),
        dagster_ui=os.environ.get("POLAR_DAGSTER_URL", "http://127.0.0.1:3000"),
    )
