"""MLflow through its client alone: one run per asset, partition and attempt.

What is not here: autologging, global "active run" state, models (adapters lie in the home; a run names their sha256).
"""

import logging
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polar_pipeline.tracking.base import Step, TrackedRun

if TYPE_CHECKING:
    from mlflow import MlflowClient


# MLflow's page then opens with runs and metrics, not with traces of prompts
_KIND = {"mlflow.experimentKind": "custom_model_development"}


class MlflowTracker:
    """Runs in the sqlite tracking store `database`; `ui` and `dagster_ui` are the addresses that links point to."""

    def __init__(self, database: Path, artifacts: Path, experiment: str, ui: str, dagster_ui: str) -> None:
        self._database, self._artifacts, self._experiment_name = database, artifacts, experiment
        self._ui, self._dagster_ui = ui.rstrip("/"), dagster_ui.rstrip("/")
        self._connected: tuple[MlflowClient, str] | None = None

    @contextmanager
    def step(self, step: Step) -> Iterator[TrackedRun]:
        """Open a run for `step`; it is FINISHED when the block ends, and FAILED when anything interrupts it."""
        client, experiment = self.connect()
        self._close(f"tags.`dagster.asset` = '{step.asset}' AND tags.`dagster.partition` = '{step.partition or ''}'")
        tags = {**step.tags, "dagster.url": f"{self._dagster_ui}/runs/{step.dagster_run}"}
        run_id = client.create_run(experiment, run_name=step.name, tags=tags).info.run_id
        run = TrackedRun(
            links={"mlflow_run_id": run_id, "mlflow_url": f"{self._ui}/#/experiments/{experiment}/runs/{run_id}"},
            stream=lambda step, values: _measure(client, run_id, step, values),
        )
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        finally:
            self._send(client, run_id, run)
            client.set_terminated(run_id, status)

    def close_killed(self, dagster_run: str | None = None) -> int:
        """Mark runs of a dead Dagster run KILLED: a SIGKILL left nobody to close them."""
        return self._close(f"tags.`dagster.run_id` = '{dagster_run}'") if dagster_run else 0

    def connect(self) -> "tuple[MlflowClient, str]":
        """The client and the experiment's id; the first call makes or migrates the database."""
        if self._connected is None:
            self._connected = _connect(self._database, self._artifacts, self._experiment_name)
        return self._connected

    def _close(self, which: str) -> int:
        client, experiment = self.connect()
        left = client.search_runs([experiment], filter_string=f"attributes.status = 'RUNNING' AND {which}")
        for run in left:
            client.set_terminated(run.info.run_id, "KILLED")
        return len(left)

    @staticmethod
    def _send(client: "MlflowClient", run_id: str, run: TrackedRun) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param

        now = int(time.time() * 1000)
        params = [Param(key, str(value)) for key, value in run.params.items()]
        metrics = [Metric(key, float(value), now, 0) for key, value in run.metrics.items()]
        client.log_batch(run_id, metrics=metrics, params=params)
        inputs = [
            # MLflow keeps 36 characters of a digest
            DatasetInput(
                Dataset(name, digest[:36], "polar_pipeline", "{}"), [InputTag("mlflow.data.context", "training")]
            )
            for name, digest in run.datasets.items()
        ]
        if inputs:
            client.log_inputs(run_id, inputs)


def _measure(client: "MlflowClient", run_id: str, step: int, values: Mapping[str, float]) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    client.log_batch(run_id, metrics=[Metric(key, float(value), now, step) for key, value in values.items()])


def _connect(database: Path, artifacts: Path, experiment: str) -> "tuple[MlflowClient, str]":
    """A client and the experiment's id. Processes that first touch an empty database would collide in its migrations.

    A process that is killed in them leaves tables with which nothing can be done, so they are made beside the database.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
    from filelock import FileLock
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)  # its migrations announce themselves line by line
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_suffix(".lock")):
        for left in database.parent.glob(f".{database.name}.*"):  # of a killed process: nobody else is here
            left.unlink()
        if not database.exists():
            new = (
                database.parent / f".{database.name}.{uuid.uuid4().hex}"
            )  # MLflow remembers every database by its path
            MlflowClient(tracking_uri=f"sqlite:///{new}").search_experiments(max_results=1)
            new.replace(database)
        client: Any = MlflowClient(tracking_uri=f"sqlite:///{database}")
        found = client.get_experiment_by_name(experiment)
        location = (artifacts / "mlflow").as_uri()
        identity = (
            found.experiment_id
            if found
            else client.create_experiment(experiment, artifact_location=location, tags=_KIND)
        )
    return client, identity
