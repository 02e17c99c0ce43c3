"""`polar ui`: servers that are killed come back, queued runs wait for them, and everything ends with it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from starlette.applications import Starlette
from starlette.testclient import TestClient

from polar_pipeline.defs.instance import prepare_home
from polar_pipeline.defs.processes.servers import dagster_routes, mlflow_routes
from polar_pipeline.defs.processes.ui import Ports, _other_profiles, _servers
from polar_pipeline.defs.project import Project
from polar_pipeline.storage.home import Home, ProfileFolder
from polar_pipeline_tests.conftest import ASSETS, CODES, polar

SERVERS = ["code", "daemon", "webserver", "mlflow"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Servers:
    """A running `polar ui`."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.home, self.dagster, self.mlflow = home, free_port(), free_port()
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("POLAR_", "DAGSTER_"))}
        command = [sys.executable, "-m", "polar_pipeline", "ui", "--profile", "demo"]
        ports = ["--dagster-port", str(self.dagster), "--mlflow-port", str(self.mlflow)]
        self.log = (home.parent / "ui.log").open("w+")
        environment = {**inherited, "POLAR_HOME": str(home), **variables}
        self.process = subprocess.Popen([*command, *ports], env=environment, stdout=self.log, stderr=self.log)

    @property
    def results(self) -> ProfileFolder:
        """What the profile that it was started with has made."""
        return Home(self.home).results("demo")

    def graphql(self, query: str, **variables: Any) -> Any:
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.dagster}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            answer = json.load(response)
        assert "errors" not in answer, answer
        return answer["data"]

    def get(self, path: str, port: int | None = None) -> tuple[int, str]:
        """Status and body of a page."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port or self.dagster}{path}", timeout=30) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def wait(self, seconds: float, what: str, done: Callable[[], Any]) -> None:
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

    def backfill(self) -> str:
        """Launch all languages as the page does; returns the backfill's id."""
        launched = self.graphql(
            """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
            __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
            params={
                "assetSelection": [{"path": ["demo", name]} for name in ASSETS],
                "partitionNames": CODES,
                "title": "all",
            },
        )["launchPartitionBackfill"]
        assert launched["__typename"] == "LaunchBackfillSuccess", launched
        return str(launched["backfillId"])

    def backfill_status(self, backfill: str) -> str:
        query = (
            "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"
        )
        return str(self.graphql(query, id=backfill)["partitionBackfillOrError"]["status"])

    def runs(self) -> dict[str, str]:
        """The state of each run."""
        found = self.graphql("{ runsOrError { ... on Runs { results { runId status } } } }")["runsOrError"]["results"]
        return {run["runId"]: run["status"] for run in found}

    def location_works(self) -> bool:
        answer = self.graphql("{ repositoriesOrError { __typename ... on RepositoryConnection { nodes { name } } } }")
        return bool(answer["repositoriesOrError"].get("nodes"))

    def kill(self, name: str) -> None:
        """SIGKILL for one server, which has to come back as another process."""
        (before,) = server(self.process.pid, name)
        before.kill()
        self.wait(
            60, name, lambda: [process.pid for process in server(self.process.pid, name)] not in ([], [before.pid])
        )


def server(ui: int, name: str) -> list[psutil.Process]:
    """The process of a server of `polar ui`."""
    found = []
    for child in psutil.Process(ui).children():
        with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):
            if child.cmdline()[1:4] == ["-m", "polar_pipeline.defs.processes.servers", name]:
                found.append(child)
    return found


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    with running(tmp_path / "home") as found:
        yield found


@contextmanager
def running(home: Path) -> Iterator[Servers]:
    """`polar ui` with the demo, ended as a service manager would."""
    running = Servers(home)
    try:
        running.wait(120, "both servers", lambda: "MLflow   http" in running.output())
        yield running
    finally:
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)  # as a service manager would
        try:
            running.process.wait(30)
        except subprocess.TimeoutExpired:
            running.process.kill()
            raise
    assert_nothing_listens(running)


def assert_nothing_listens(running: Servers) -> None:
    for port in (running.dagster, running.mlflow):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, f"something still listens on {port}"


@pytest.mark.slow
def test_a_backfill_from_the_ui_leaves_every_language_exactly_once_and_the_report_follows(servers: Servers) -> None:
    backfill = servers.backfill()
    servers.wait(600, "the backfill", lambda: servers.backfill_status(backfill).startswith("COMPLETED"))
    servers.wait(300, "the submission", servers.results.submission.exists)
    servers.wait(60, "the report", servers.results.report.exists)
    assert sorted(file.stem for file in servers.results.predictions("deu").parent.iterdir()) == CODES

    client = MlflowClient(f"http://127.0.0.1:{servers.mlflow}")
    experiment = client.get_experiment_by_name("polar")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`dagster.asset` != ''", max_results=1000)
    tags = [run.data.tags for run in runs]
    steps = Counter((tag["dagster.asset"], tag["dagster.partition"]) for tag in tags if tag["dagster.partition"])
    assert steps == Counter((asset, code) for asset in ASSETS for code in CODES)
    assert {tag["dagster.backfill"] for tag in tags if tag["dagster.partition"]} == {backfill}
    links = {tag["mlflow.note.content"]: f"[Dagster run](/polar/dagster/runs/{tag['dagster.run_id']})" for tag in tags}
    assert all(link == expected for link, expected in links.items())

    # the terminal has what a person should know, and the report and the links between the two are served
    lines = servers.output().splitlines()
    assert [line.split()[0] for line in lines] == ["home", "profile", "Dagster", "MLflow", "report", "logs", "Ctrl-C"]
    address = lines[4].split()[1]
    assert address == f"http://127.0.0.1:{servers.dagster}/polar/report/demo/"
    assert servers.get("/polar/report/demo/") == (200, servers.results.report.read_text())
    status, page = servers.get(f"/polar/mlflow/runs/{runs[0].info.run_id}")
    assert status == 200 and "<title>MLflow</title>" in page
    status, page = servers.get(f"/polar/dagster/runs/{tags[0]['dagster.run_id']}", servers.mlflow)
    assert status == 200 and "Dagster</title>" in page


@pytest.mark.slow
def test_servers_that_are_killed_come_back_and_no_queued_run_fails(servers: Servers) -> None:
    backfill = servers.backfill()
    servers.wait(120, "a started run", lambda: "STARTED" in servers.runs().values())
    for name in SERVERS:
        servers.kill(name)
    servers.wait(
        120, "pages", lambda: servers.get("/server_info")[0] == servers.get("/health", servers.mlflow)[0] == 200
    )
    servers.wait(600, "the backfill", lambda: servers.backfill_status(backfill).startswith("COMPLETED"))
    assert servers.backfill_status(backfill) == "COMPLETED_SUCCESS" and "FAILURE" not in servers.runs().values()
    servers.wait(300, "the submission", servers.results.submission.exists)
    told = [line for line in servers.output().splitlines() if "was killed" in line]
    assert len(told) == 4 and all("by SIGKILL; it is started again. Its log: " in line for line in told)
    assert {file.name for file in (servers.home / "logs").iterdir()} >= {"daemon.log", "mlflow.log"}


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_whatever_ends_it_ends_all_its_processes(servers: Servers, how: signal.Signals) -> None:
    servers.wait(60, "the code server", servers.location_works)
    family = psutil.Process(servers.process.pid).children(recursive=True)
    assert len(family) >= 4
    servers.process.send_signal(how)
    assert servers.process.wait(30) == (-signal.SIGKILL if how == signal.SIGKILL else 0)
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    assert "Traceback" not in servers.output()


@pytest.mark.slow
def test_a_server_that_cannot_run_is_given_up_with_a_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "dagster_webserver"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('this installation is broken')\n")
    paths = os.pathsep.join([str(broken.parent), os.environ.get("PYTHONPATH", "")])
    running = Servers(tmp_path / "home", PYTHONPATH=paths)
    try:
        assert running.process.wait(180) == 3
    finally:
        running.process.kill()
    last = running.output().splitlines()[-2:]
    assert "5 times in a row; its last message: RuntimeError: this installation is broken" in last[0]
    log = running.home / "logs" / "webserver.log"
    assert (
        last[1] == f"polar: the Dagster web server cannot be kept running: see {log}."
        and "Traceback" in log.read_text()
    )
    assert_nothing_listens(running)


@pytest.mark.slow
@pytest.mark.parametrize("set_home", [False, True])
def test_dg_dev_works_from_the_root(tmp_path: Path, set_home: bool) -> None:
    root, port = Path(__file__).parents[2], free_port()
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("POLAR_", "DAGSTER_"))}
    home = {"DAGSTER_HOME": str(tmp_path / "home" / "dagster")} if set_home else {}
    (tmp_path / "home" / "dagster").mkdir(parents=True)
    variables = {**inherited, **home, "POLAR_HOME": str(tmp_path / "home"), "POLAR_PROFILE": "demo"}
    command = [str(Path(sys.executable).with_name("dg")), "dev", "--port", str(port)]
    with (tmp_path / "dg.log").open("w+") as log:
        process = subprocess.Popen(command, cwd=root, env=variables, stdout=log, stderr=log, start_new_session=True)
        family = []
        try:
            page = Servers.__new__(Servers)
            page.process, page.dagster, page.log, page.home = process, port, log, tmp_path / "home"
            page.wait(120, "dg dev", page.location_works)
            family = psutil.Process(process.pid).children(recursive=True)
        finally:
            os.killpg(process.pid, signal.SIGINT)
            _, left = psutil.wait_procs([psutil.Process(process.pid), *family], timeout=60)
            for one in left:
                one.kill()
    assert not left
    if set_home:
        done = polar(tmp_path / "home", "run", "--language", "deu", "--profile", "demo", check=False)
        assert done.returncode == 0, done.stderr


def test_every_profile_with_results_is_a_location_and_those_that_cannot_be_are_said(
    project: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def results_of(name: str, content: str | None) -> None:
        settings = project.home.results(name).settings
        settings.parent.mkdir(parents=True)
        if content is not None:
            settings.write_text(content)

    own = tmp_path / "own.yaml"
    own.write_text("name: own\ndata: bundled\nlanguages: [deu]\n")
    results_of("demo", json.dumps({"source": "bundled", "settings": {}}))
    results_of("cpu", None)  # of a version that did not write where its settings come from
    results_of("own", json.dumps({"source": str(own), "settings": {}}))
    results_of("gone", json.dumps({"source": str(tmp_path / "gone.yaml"), "settings": {}}))
    results_of("renamed", json.dumps({"source": str(own), "settings": {}}))
    results_of("unknown", None)
    results_of("damaged", "{")
    sources = dict(_other_profiles(project))
    assert sources == {"cpu": "cpu", "own": str(own)}
    said = capsys.readouterr().err.splitlines()
    assert [line.split()[1] for line in said] == ["damaged", "gone", "renamed", "unknown"]
    assert "gone.yaml does not exist" in said[1] and f"{own} is now profile 'own'." in said[2]

    prepare_home(project.home)
    found = _servers(project, {"demo": "demo", **sources}, Ports(3000, 5000))
    code = [server for server in found if server.serves_code]
    assert [(server.command[2], server.variables, server.optional) for server in code] == [
        ("demo", {"POLAR_PROFILE": "demo"}, False),
        ("cpu", {"POLAR_PROFILE": "cpu"}, True),
        ("own", {"POLAR_PROFILE": str(own)}, True),
    ]
    assert len({server.log for server in found}) == len({server.command[1] for server in code}) + 3


@pytest.mark.slow
def test_two_profiles_stand_side_by_side(tmp_path: Path) -> None:
    home, own = tmp_path / "home", tmp_path / "own.yaml"
    own.write_text("name: own\ndata: bundled\nlanguages: [deu]\n")
    settings = Home(home).results("own").settings
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"source": str(own), "settings": {}}))
    with running(home) as servers:
        servers.wait(60, "both locations", lambda: len(locations(servers)) == 2)
        assert locations(servers) == {"demo", "own"}
        nodes = servers.graphql("{ assetNodes { assetKey { path } repository { location { name } } } }")["assetNodes"]
        keys = [node["assetKey"]["path"] for node in nodes]
        assert len({tuple(key) for key in keys}) == len(keys)
        assert all(node["assetKey"]["path"][0] == node["repository"]["location"]["name"] for node in nodes)
        launched = servers.graphql(
            "mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) "
            "{ ... on LaunchBackfillSuccess { backfillId } } }",
            params={"assetSelection": [{"path": ["own", "raw_posts"]}], "partitionNames": ["deu"]},
        )["launchPartitionBackfill"]
        servers.wait(300, "the run", lambda: servers.backfill_status(launched["backfillId"]).startswith("COMPLETED"))
        assert (Home(home).results("own").tables / "raw_posts" / "deu.parquet").exists()
        assert not (Home(home).results("demo").tables / "raw_posts").exists()


def locations(servers: Servers) -> set[str]:
    """The code locations that are loaded."""
    query = "{ repositoriesOrError { ... on RepositoryConnection { nodes { location { name } } } } }"
    return {node["location"]["name"] for node in servers.graphql(query)["repositoriesOrError"]["nodes"]}


FORKS = """
import os, sys
from polar_pipeline.defs.processes.servers import run_processes

def report(queue):
    queue.put([os.getppid(), *(name in sys.modules for name in ("mlflow", "sklearn", "torch"))])

if __name__ == "__main__":
    context = run_processes()
    queue = context.Queue()
    for _ in range(2):
        process = context.Process(target=report, args=[queue])
        process.start()
        print(os.getpid(), *queue.get(timeout=120))
        process.join(30)
"""


def test_runs_are_forked_from_a_process_that_has_imported_all_but_torch(tmp_path: Path) -> None:
    program = tmp_path / "forks.py"  # in a process of its own: Python has one such server per process
    program.write_text(FORKS)
    command = [sys.executable, str(program)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=240, cwd=Path(__file__).parents[2]
    )
    first, second = (line.split() for line in done.stdout.splitlines())
    assert first == second and first[0] != first[1]
    assert first[2:] == ["True", "True", "False"]


def test_routes_say_what_there_is_not_and_stay_in_their_folder(project: Project) -> None:
    home = project.home
    (home.root / "secret.html").parent.mkdir(parents=True)
    (home.root / "secret.html").write_text("secret")
    app = Starlette(
        routes=[*dagster_routes(home, f"http://127.0.0.1:{free_port()}"), *mlflow_routes(home, "http://d:1")]
    )
    client = TestClient(app, follow_redirects=False)
    for profile in ("demo", "..", "%2e%2e", "..%2fsecret.html", "<script>", ".%2f.."):
        answer = client.get(f"/polar/report/{profile}/")
        assert answer.status_code == 404 and "<" not in answer.text and "secret" not in answer.text
    project.results.report.parent.mkdir(parents=True)
    project.results.report.write_text("<p>the report</p>")
    answer = client.get("/polar/report/demo/")
    assert answer.text == "<p>the report</p>" and answer.headers["content-security-policy"].startswith("sandbox")
    assert client.get("/polar/report/demo").headers["location"].endswith("/polar/report/demo/")
    run = "0b4f5a3e-1234-4321-8888-0123456789ab"
    assert client.get(f"/polar/dagster/runs/{run}").headers["location"] == f"http://d:1/runs/{run}"
    for path in ("dagster/runs/..", "dagster/runs/<b>", "mlflow/runs/../../x", "mlflow/runs/<b>"):
        assert client.get(f"/polar/{path}").status_code == 404
    assert client.get("/polar/mlflow/runs/" + 32 * "a").status_code == 502


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ports = ["--mlflow-port", port, "--dagster-port", str(free_port())]
        done = polar(tmp_path / "home", "ui", "--profile", "demo", *ports, check=False)
    message = f"polar: port {port} is in use: choose another with --mlflow-port."
    assert (done.returncode, done.stderr.strip()) == (2, message)
