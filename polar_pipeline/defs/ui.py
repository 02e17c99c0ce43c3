"""`polar ui`: the Dagster webserver, its daemon and the MLflow server together, over one home."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg

from polar_pipeline.defs.instance import prepare_home, project_file
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.resources import make_tracker
from polar_pipeline.errors import InputError
from polar_pipeline.tracking.store import sqlite_url

HOST = "127.0.0.1"  # there is no login, so nobody but this machine may reach them


@dataclass(frozen=True)
class Ports:
    """Where the two user interfaces listen."""

    dagster: int
    mlflow: int


@contextmanager
def servers(project: Project, profile: str, ports: Ports) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Start the three processes, and stop them and their children when the block ends."""
    for name, port in (("--dagster-port", ports.dagster), ("--mlflow-port", ports.mlflow)):
        if not _free(port):
            raise InputError(f"port {port} is in use: choose another with {name}.")
    environment = {**os.environ, **prepare_home(project.home), "POLAR_PROFILE": profile}
    environment |= {
        "POLAR_MLFLOW_URL": f"http://{HOST}:{ports.mlflow}",
        "POLAR_DAGSTER_URL": f"http://{HOST}:{ports.dagster}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # five processes that evaluate prompts, which nobody here does
    }
    make_databases(project)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the block below ends then too
    running = {
        name: subprocess.Popen(command, env=environment, start_new_session=True)
        for name, command in _commands(project, ports).items()
    }
    try:
        yield running
    finally:
        for process in running.values():
            _stop(process)


def make_databases(project: Project) -> None:
    """Make the databases before several processes try to at once: they would stumble over each other's tables."""
    with dg.DagsterInstance.from_config(str(project.home.dagster)):
        pass
    make_tracker(project).connect()


def wait_for_end(running: dict[str, subprocess.Popen[bytes]]) -> str:
    """Block until one of the processes ends by itself; returns its name."""
    while True:
        for name, process in running.items():
            if process.poll() is not None:
                return name
        time.sleep(0.5)


def wait_until_up(ports: Ports, seconds: float) -> bool:
    """Whether both interfaces accept connections within `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not _free(ports.dagster) and not _free(ports.mlflow):
            return True
        time.sleep(0.5)
    return False


def _commands(project: Project, ports: Ports) -> dict[str, list[str]]:
    python, workspace = sys.executable, str(project_file("workspace.yaml"))
    home = project.home
    return {
        "Dagster webserver": [
            python, "-m", "dagster_webserver", "-w", workspace, "-h", HOST, "-p", str(ports.dagster), "--log-level", "warning",
        ],
        "Dagster daemon": [python, "-m", "dagster._daemon", "run", "-w", workspace, "--log-level", "warning"],
        "MLflow server": [
            python, "-m", "mlflow", "server", "--host", HOST, "--port", str(ports.mlflow), "--workers", "1",
            "--backend-store-uri", sqlite_url(home.mlflow_database),
            "--default-artifact-root", (home.artifacts / "mlflow").as_uri(),
        ],
    }  # fmt: skip


def _free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return probe.connect_ex((HOST, port)) != 0


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
