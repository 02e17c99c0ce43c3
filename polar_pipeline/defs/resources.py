"""The tracker as a resource. What does not belong here: paths and settings, which the definitions close over."""

import os
from functools import cache
from pathlib import Path
from typing import Any, cast

import dagster as dg

from polar_pipeline.defs.project import Project
from polar_pipeline.tracking.base import Tracker
from polar_pipeline.tracking.mlflow_tracker import MlflowTracker
from polar_pipeline.tracking.store import sqlite_url


class MlflowResource(dg.ConfigurableResource[Tracker]):
    """MLflow tracking in a database or on a server; assets get a `Tracker`. Parent runs end with the Dagster run."""

    tracking_uri: str
    artifacts: str
    experiment: str
    profile: str
    dagster_ui: str = ""

    def create_resource(self, context: dg.InitResourceContext) -> Tracker:  # noqa: ARG002 - Dagster's signature
        """The process's tracker; it connects when a step first opens a run."""
        return self.tracker()

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the parent runs that steps of this Dagster run opened."""
        if (run := context.run) is not None and context.instance is not None:
            failures = context.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
            self.tracker().end_pipeline(run.root_run_id or run.run_id, failed=bool(failures))

    def tracker(self) -> MlflowTracker:
        """The tracker outside a Dagster run."""
        return _tracker(self.tracking_uri, self.artifacts, self.experiment, self.profile, self.dagster_ui)


@cache
def _tracker(uri: str, artifacts: str, experiment: str, profile: str, dagster_ui: str) -> MlflowTracker:
    """One per process, because opening a store takes seconds."""
    return MlflowTracker(uri, Path(artifacts), experiment, dagster_ui, {"profile": profile})


def mlflow_resource(project: Project) -> MlflowResource:
    """Tracking on $MLFLOW_TRACKING_URI, or in the home's database where that is not set or empty.

    $POLAR_DAGSTER_URL is where links from an MLflow server to Dagster lead.
    """
    variables: dict[str, Any] = {
        "tracking_uri": _variable("MLFLOW_TRACKING_URI", sqlite_url(project.home.mlflow_database)),
        "dagster_ui": _variable("POLAR_DAGSTER_URL", ""),
    }
    home, card = project.home, project.card
    return MlflowResource(
        artifacts=str(home.mlflow_artifacts), experiment=card.name, profile=project.profile.name, **variables
    )


def _variable(name: str, default: str) -> str:
    """The environment variable, by name so that Dagster's UI shows that, or `default`."""
    return dg.EnvVar(name) if os.environ.get(name) else default


def make_tracker(project: Project) -> MlflowTracker:
    """The same tracker for callers outside Dagster."""
    with mlflow_resource(project).process_config_and_initialize_cm() as tracker:  # reads the variables
        return cast("MlflowTracker", tracker)
