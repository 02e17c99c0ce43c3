"""`polar ui` as it is used: both servers up, a backfill launched through Dagster's API, MLflow with every run exactly once."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from polar_pipeline.defs.instance import prepare_home
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.ui import make_databases
from polar_pipeline_tests.conftest import ASSETS, CODES, polar

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Servers:
    """A running `polar ui`."""

    def __init__(self, home: Path) -> None:
        self.home, self.dagster, self.mlflow = home, free_port(), free_port()
        variables = {key: value for key, value in os.environ.items() if not key.startswith(("POLAR_", "DAGSTER_"))}
        command = [sys.executable, "-m", "polar_pipeline", "ui", "--profile", "demo"]
        ports = ["--dagster-port", str(self.dagster), "--mlflow-port", str(self.mlflow)]
        self.log = (home.parent / "ui.log").open("w+")
        environment = {**variables, "POLAR_HOME": str(home)}
        self.process = subprocess.Popen([*command, *ports], env=environment, stdout=self.log, stderr=self.log)

    def graphql(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.dagster}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    def wait(self, seconds: float, what: str, done: Any) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.output()
            try:
                if done():
                    return
            except OSError:
                pass  # not listening yet
            time.sleep(1)
        raise AssertionError(f"{what} not within {seconds} s:\n{self.output()}")

    def output(self) -> str:
        self.log.flush()
        return Path(self.log.name).read_text()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    running = Servers(tmp_path / "home")
    try:
        running.wait(120, "both servers", lambda: "MLflow   http" in running.output())
        yield running
    finally:
        running.process.send_signal(signal.SIGTERM)  # as a service manager would
        running.process.wait(30)
    for port in (running.dagster, running.mlflow):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, f"something still listens on {port}"


def test_a_backfill_from_the_ui_leaves_every_language_exactly_once_and_the_report_follows(servers: Servers) -> None:
    launched = servers.graphql(
        """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
        __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
        params={"assetSelection": [{"path": [name]} for name in ASSETS], "partitionNames": CODES, "title": "all"},
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    status = (
        """query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"""
    )

    def ended() -> bool:
        return str(servers.graphql(status, id=launched["backfillId"])["partitionBackfillOrError"]["status"]).startswith(
            "COMPLETED"
        )

    servers.wait(600, "the backfill", ended)
    servers.wait(300, "the report", (servers.home / "submission.zip").exists)
    servers.wait(60, "the report", (servers.home / "report" / "index.html").exists)
    assert sorted(file.stem for file in (servers.home / "predictions").iterdir()) == CODES

    client = MlflowClient(f"http://127.0.0.1:{servers.mlflow}")
    experiment = client.get_experiment_by_name("polar")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    tags = [run.data.tags for run in runs if "mlflow.parentRunId" in run.data.tags]
    steps = Counter((tag["dagster.asset"], tag["dagster.partition"]) for tag in tags if tag["dagster.partition"])
    assert steps == Counter((asset, code) for asset in ASSETS for code in CODES)
    assert {tag["dagster.backfill"] for tag in tags if tag["dagster.partition"]} == {launched["backfillId"]}
    assert all(f"(/polar/dagster/runs/{tag['dagster.run_id']})" in tag["mlflow.note.content"] for tag in tags)


def test_all_databases_are_there_before_any_server_starts(project: Project) -> None:
    prepare_home(project.home)
    make_databases(project)
    made = {str(file.relative_to(project.home.root)) for file in project.home.root.rglob("*.db")}
    expected = {"history/runs.db", "history/runs/index.db", "schedules/schedules.db"}
    assert made >= {"mlflow.db", *(f"dagster/{name}" for name in expected)}


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = polar(
            tmp_path / "home",
            "ui",
            "--profile",
            "demo",
            "--mlflow-port",
            port,
            "--dagster-port",
            str(free_port()),
            check=False,
        )
    assert (done.returncode, done.stderr.strip()) == (
        2,
        f"polar: port {port} is in use: choose another with --mlflow-port.",
    )
