"""MLflow through its client alone: a run per asset, partition and attempt, under one per pipeline run and partition.

A store that cannot be opened at first stops the step, with one sentence. After that tracking never does: the first
call of a step that fails is logged as a warning, and the next step opens the store again.
What does not belong here: autologging, MLflow's global "active run", and models: they lie in the home.
"""

import json
import logging
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from polar_pipeline.tracking import store
from polar_pipeline.tracking.base import TrackedRun, TrackedStep, Tracker, UsedData

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run

ARTIFACT_BYTES = 32 << 20  # of one step; what is larger belongs into the home's own folders
HOST_TAG, PROCESS, STARTED = "polar.host", "polar.pid", "polar.process_start"  # tags: which process works on a run
_PARENT, _KIND, _PIPELINE = "mlflow.parentRunId", "polar.kind", "pipeline"
_CLOCK = 2.0  # seconds by which a start time may differ when the clock was set; a pid is not reused that soon
_PARAM_LENGTH, _DIGEST_LENGTH = 6000, 36  # characters that MLflow takes
_ROWS_FOR_SCHEMA = 100
_logger = logging.getLogger(__name__)


@dataclass
class _Open:
    """An open run. `failed`: a call to MLflow failed, which was logged."""

    client: "MlflowClient"
    run_id: str
    parent: str
    step: TrackedStep
    failed: bool = False


class MlflowTracker(Tracker):
    """Runs in the store at `uri`: a server, or a database's URL.

    `artifacts` is the folder for files of a database's runs. `dagster_ui` is Dagster's address for links from a server;
    links from a database's runs are relative to the web server. `tags` are for all runs.
    """

    def __init__(
        self, uri: str, artifacts: Path, experiment: str, dagster_ui: str = "", tags: Mapping[str, str] | None = None
    ) -> None:
        self._uri, self._artifacts, self._experiment, self._tags = uri, artifacts, experiment, dict(tags or {})
        self._remote = uri.startswith("http")
        self._dagster_ui = dagster_ui.rstrip("/") if self._remote and dagster_ui else "/polar/dagster"
        self._database = store.sqlite_file(uri)
        self._store: tuple[MlflowClient, str] | None = None  # the client and the experiment's id
        self._was_open = False
        self._parents: dict[tuple[str, str | None], str] = {}  # ids of parent runs by root run and partition

    @contextmanager
    def step(self, step: TrackedStep) -> Iterator[TrackedRun]:
        """Open a run for `step`; it is FINISHED when the block ends, and FAILED when anything interrupts it.

        Raises EnvironmentProblem if the store cannot be opened for the first time.
        """
        opened = self._open(step)
        run = TrackedRun()
        if opened:
            run.links = {"mlflow_run_id": opened.run_id, "mlflow_url": self._url(opened.run_id)}
            run.stream = lambda at, values: self._measure(opened, at, values)
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        finally:
            if opened:
                self._close(opened, run, status)

    def end_pipeline(self, root_run: str, failed: bool = False) -> None:
        """Close the parents of a root run, but for those of which a child is still open in another process.

        A parent is FAILED if the last attempt of a child did not finish, or if it is the only one and the run `failed`.
        """
        if not self._was_open:
            return
        self._parents = {key: parent for key, parent in self._parents.items() if key[0] != root_run}
        try:
            client, _ = self.connect()
            runs = self._search(f"tags.`dagster.root_run_id` = '{root_run}'")
            parents = [run.info for run in runs if run.data.tags.get(_KIND) == _PIPELINE]
            for parent in [parent for parent in parents if parent.status == "RUNNING"]:
                children = [run for run in runs if run.data.tags.get(_PARENT) == parent.run_id]
                last = {run.data.tags["dagster.asset"]: run.info.status for run in children}  # oldest first
                if "RUNNING" not in last.values():
                    bad = any(status != "FINISHED" for status in last.values()) or (failed and len(parents) == 1)
                    client.set_terminated(parent.run_id, "FAILED" if bad else "FINISHED")
        except Exception as error:
            self._warn(f"the end of run {root_run}", error)

    def close_killed(self, dagster_run: str | None = None) -> int:
        """Mark open runs of a dead Dagster run KILLED, or all whose process on this host is gone; returns how many.

        Raises EnvironmentProblem if the store cannot be opened.
        """
        if self._database and not store.open_runs(self._database):
            return 0
        self.connect()
        return self._kill(dagster_run)

    def connect(self) -> "tuple[MlflowClient, str]":
        """The client and the experiment's id. The first call creates or migrates a sqlite file, and closes orphans.

        Raises EnvironmentProblem if the store cannot be used.
        """
        if self._store is None:
            try:
                with self._lock():  # processes that create one database at once would collide
                    client = store.open_store(self._uri)
                    files = None if self._remote else self._artifacts
                    experiment = store.find_experiment(client, self._experiment, files)
                    if files and self._database and self._database.parent == self._artifacts.parent:
                        store.follow_moved_home(self._database, experiment, files)
                self._store = client, experiment
                if not self._was_open:
                    self._kill(None)
            except Exception as error:  # libraries of servers and databases raise what they like
                self._store = None
                raise store.explained(self._uri, error) from error
            self._was_open = True
        return self._store

    def _lock(self) -> AbstractContextManager[object]:
        return store.locked((self._database or self._artifacts.parent / "mlflow.db").with_suffix(".lock"))

    def _open(self, step: TrackedStep) -> _Open | None:
        if not self._was_open:
            self.connect()
        try:
            client, experiment = self.connect()
            parent = self._parent(step)
            tags = {**self._run_tags(step.dagster_run), **step.run_tags, _PARENT: parent}
            run_id = client.create_run(experiment, run_name=step.name, tags=tags).info.run_id
        except Exception as error:  # the step goes on without a run
            self._warn(step.name, error)
            return None
        return _Open(client, run_id, parent, step)

    def _parent(self, step: TrackedStep) -> str:
        """The parent run's id; it is RUNNING from here on."""
        key = step.root_run, step.partition
        if key not in self._parents:
            client, experiment = self.connect()
            tags = {**self._run_tags(step.root_run), **step.pipeline_tags, _KIND: _PIPELINE}
            which = (_KIND, "dagster.root_run_id", "dagster.partition")
            with self._lock():  # several processes may execute steps of one run
                found = self._search(" AND ".join(f"tags.`{name}` = '{tags[name]}'" for name in which))
                if found:
                    parent = found[0].info.run_id
                    client.update_run(parent, status="RUNNING")
                    for name, value in (process_tags() | {"dagster.run_id": step.dagster_run}).items():
                        client.set_tag(parent, name, value)
                else:
                    name = f"{_PIPELINE}[{step.partition}]" if step.partition else _PIPELINE
                    parent = client.create_run(experiment, run_name=name, tags=tags).info.run_id
            self._parents[key] = parent
        return self._parents[key]

    def _run_tags(self, dagster_run: str) -> dict[str, str]:
        link = f"[Dagster run]({self._dagster_ui}/runs/{dagster_run})"
        return {**self._tags, **process_tags(), "mlflow.note.content": link}

    def _url(self, run_id: str) -> str:
        """Relative to Dagster's web server, whatever its port, or on the tracking server."""
        if not self._remote or self._store is None:
            return f"/polar/mlflow/runs/{run_id}"
        return f"{store.without_password(self._uri).rstrip('/')}/#/experiments/{self._store[1]}/runs/{run_id}"

    def _measure(self, opened: _Open, at: int, values: Mapping[str, float]) -> None:
        if not opened.failed:  # a server that is gone would hold up every step of a training
            with self._warned(opened):
                opened.client.log_batch(opened.run_id, metrics=_metrics(values, at))

    def _close(self, opened: _Open, run: TrackedRun, status: str) -> None:
        """Send what was recorded, then the end, which is sent even if something before it was refused."""
        with self._warned(opened):
            self._send(opened, run)
        with self._warned(opened):
            opened.client.set_terminated(opened.run_id, status)

    @contextmanager
    def _warned(self, opened: _Open) -> Iterator[None]:
        """Go on without what fails; the first failure of a step is logged."""
        try:
            yield
        except Exception as error:
            if not opened.failed:
                opened.failed = True
                self._warn(opened.step.name, error)

    def _send(self, opened: _Open, run: TrackedRun) -> None:
        from mlflow.entities import Param, RunTag

        client, run_id = opened.client, opened.run_id
        params = [Param(key, str(value)[:_PARAM_LENGTH]) for key, value in run.params.items()]
        client.log_batch(run_id, metrics=_metrics(run.metrics), params=params)
        if run.data:
            client.log_inputs(run_id, [_dataset_input(data) for data in run.data])
        if run.artifacts:
            _send_artifacts(client, run_id, run.artifacts)
        tags = [RunTag(key, value) for key, value in run.summary_tags.items()]
        client.log_batch(opened.parent, metrics=_metrics(run.summary_metrics), tags=tags)

    def _kill(self, dagster_run: str | None) -> int:
        client, _ = self.connect()
        of_run = f" AND tags.`dagster.run_id` = '{dagster_run}'" if dagster_run else ""
        found = {run.info.run_id: run.data.tags for run in self._search(f"attributes.status = 'RUNNING'{of_run}")}
        killed = _killed(found, [dagster_run] if dagster_run else [])
        for run in killed:
            client.set_terminated(run, "KILLED")
        return len(killed)

    def _search(self, which: str) -> "list[Run]":
        """All runs that match, oldest first."""
        client, experiment = self.connect()
        runs: list[Run] = []
        token = None
        while True:
            page = client.search_runs([experiment], which, order_by=["attributes.start_time ASC"], page_token=token)
            runs += page
            token = page.token
            if not token:
                return runs

    def _warn(self, what: str, error: Exception) -> None:
        self._store, self._parents = None, {}  # the next step opens the store again, and looks for its parent
        _logger.warning("MLflow has no full record of %s, which goes on without it: %s", what, store.first_line(error))


def find_killed(database: Path, dagster_runs: Collection[str] = ()) -> list[str]:
    """Ids of open runs in a sqlite store whose process is gone, and of those of dead Dagster runs.

    Raises EnvironmentProblem if the file is damaged.
    """
    return _killed(store.open_runs(database), dagster_runs)


def _killed(open_ones: Mapping[str, Mapping[str, str]], dagster_runs: Collection[str]) -> list[str]:
    """Of open runs, by id with their tags, those whose process is gone or whose Dagster run is one of these."""
    dead = {run for run, tags in open_ones.items() if tags.get("dagster.run_id") in dagster_runs or is_gone(tags)}
    # the process that created a parent may be gone while another executes a child
    return sorted(dead - {tags.get(_PARENT) for run, tags in open_ones.items() if run not in dead})


def process_tags() -> dict[str, str]:
    """Tags that name this process."""
    return _tags_of(os.getpid())


@cache
def _tags_of(process: int) -> dict[str, str]:
    started = psutil.Process(process).create_time()
    return {HOST_TAG: socket.gethostname(), PROCESS: str(process), STARTED: f"{started:.2f}"}


def is_gone(tags: Mapping[str, str]) -> bool:
    """Whether the process in `tags` ran on this host and does so no more. False where that cannot be known."""
    if tags.get(HOST_TAG) != socket.gethostname() or PROCESS not in tags or STARTED not in tags:
        return False
    try:
        process = psutil.Process(int(tags[PROCESS]))
        same = abs(process.create_time() - float(tags[STARTED])) < _CLOCK
        return not same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _metrics(values: Mapping[str, float], step: int = 0) -> "list[Metric]":
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(key, float(value), now, step) for key, value in values.items()]


def _dataset_input(data: UsedData) -> "DatasetInput":
    """The data set as `mlflow.data` describes it: digest, schema, number of rows. No values of its columns."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.pandas_dataset import from_pandas
    from mlflow.entities import Dataset, DatasetInput, InputTag

    known: dict[str, Any] = {"source_type": "code", "source": "{}"}
    if data.frame is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hints about integer columns of models
            sample = data.frame.head(_ROWS_FOR_SCHEMA)
            known = from_pandas(sample, CodeDatasetSource({}), digest="unused").to_dict()
        rows, columns = data.frame.shape
        known["profile"] = json.dumps({"num_rows": rows, "num_elements": rows * columns})
    known |= {"name": data.name, "digest": data.digest[:_DIGEST_LENGTH]}
    return DatasetInput(Dataset(**known), [InputTag("mlflow.data.context", data.context)])


def _send_artifacts(client: "MlflowClient", run_id: str, artifacts: Mapping[str, bytes]) -> None:
    size = sum(map(len, artifacts.values()))
    if size > ARTIFACT_BYTES:
        raise ValueError(f"{size} bytes of artifacts, of {ARTIFACT_BYTES} at most")
    with tempfile.TemporaryDirectory() as folder:
        for name, content in artifacts.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        client.log_artifacts(run_id, folder)
