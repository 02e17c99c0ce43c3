"""Trackers over real stores, and what is in them."""

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from polar_pipeline.tracking.base import TrackedStep
from polar_pipeline.tracking.mlflow_tracker import MlflowTracker
from polar_pipeline.tracking.store import sqlite_url

STEP = TrackedStep(
    asset="thresholds",
    partition="deu",
    dagster_run="run-1",
    root_run="run-0",
    attempt=2,
    backfill="back",
    tags={"language": "deu", "fingerprint": "abc"},
)


def another(
    asset: str = "raw_posts", partition: str | None = "deu", run: str = "run-1", root: str = "run-0"
) -> TrackedStep:
    return TrackedStep(asset=asset, partition=partition, dagster_run=run, root_run=root, attempt=1)


def tracker(home: Path) -> MlflowTracker:
    return MlflowTracker(sqlite_url(home / "mlflow.db"), home / "mlflow", "polar", tags={"profile": "cpu"})


def all_runs(home: Path) -> list[Run]:
    """Oldest first."""
    client = MlflowClient(sqlite_url(home / "mlflow.db"))
    experiment = client.get_experiment_by_name("polar")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def steps(home: Path) -> list[Run]:
    return [run for run in all_runs(home) if "dagster.asset" in run.data.tags]


def parents(home: Path) -> list[Run]:
    return [run for run in all_runs(home) if "dagster.asset" not in run.data.tags]


@contextmanager
def mlflow_server(home: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server over the home's database, its address and process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", sqlite_url(home / "mlflow.db")]
    files = ["--default-artifact-root", (home / "mlflow").as_uri()]
    process = subprocess.Popen([*command, *store, *files], cwd=home, start_new_session=True)
    try:
        end = time.monotonic() + 120
        while time.monotonic() < end:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}", process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(30)
