"""A home whose `dagster.yaml` names Postgres: nothing of ours overrides it."""

import getpass
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from polar_pipeline.defs.instance import open_instance, prepare_home
from polar_pipeline.errors import InputError
from polar_pipeline.storage.home import Home
from polar_pipeline_tests.conftest import polar
from polar_pipeline_tests.defs.test_instance import go, processes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not importlib.util.find_spec("dagster_postgres"), reason="needs the extra `postgres`"),
    pytest.mark.skipif(not shutil.which("initdb"), reason="needs a Postgres server: initdb is not on the path"),
]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server of this test's own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    user = "postgres" if os.getuid() == 0 else None  # the server refuses to run as root
    if user and subprocess.run(["id", user], capture_output=True, check=False).returncode:
        pytest.skip("Postgres does not run as root, and there is no user `postgres`")
    with tempfile.TemporaryDirectory() as folder:
        if user:
            shutil.chown(folder, user)
        data = str(Path(folder) / "data")
        owner = user or getpass.getuser()
        subprocess.run(
            ["initdb", "-D", data, "-U", owner, "--auth=trust"], user=user, cwd="/", check=True, capture_output=True
        )
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        control = ["pg_ctl", "-D", data, "-w", "-l", f"{folder}/log"]
        subprocess.run([*control, "-o", options, "start"], user=user, cwd="/", check=True, stdout=subprocess.DEVNULL)
        try:
            yield port
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], user=user, cwd="/", check=True, capture_output=True)


@pytest.fixture
def home(tmp_path: Path, port: int) -> Home:
    owner = "postgres" if os.getuid() == 0 else getpass.getuser()
    address = f"postgresql+psycopg2://{owner}:top-secret@127.0.0.1:{port}/postgres"
    return home_on(tmp_path, address)


def home_on(tmp_path: Path, address: str) -> Home:
    home = Home(tmp_path / "home")
    home.dagster.mkdir(parents=True)
    (home.dagster / "dagster.yaml").write_text(f"storage:\n  postgres:\n    postgres_url: {address}\n")
    return home


def test_processes_that_start_at_once_and_a_run_keep_their_history_there(home: Home) -> None:
    started = processes(home, 4)
    for process in started:
        go(process)
    for process in started:
        out, error = process.communicate(timeout=240)
        assert out == "worked\n", error
    done = polar(home.root, "run", "--language", "deu", "--profile", "demo")
    assert "macro-F1" in done.stdout
    with open_instance(home.dagster) as instance:
        assert type(instance.event_log_storage).__name__ == "PostgresEventLogStorage"
        assert instance.get_runs_count() == 4 + 2
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
    assert not list(home.dagster.rglob("*.db"))


def test_a_server_that_does_not_answer_is_one_sentence_without_the_password(tmp_path: Path) -> None:
    home = home_on(tmp_path, "postgresql+psycopg2://me:top-secret@127.0.0.1:1/postgres")
    with pytest.raises(InputError, match=r"dagster.yaml names \(storage\) does not open: .*refused") as told:
        prepare_home(home)
    assert "top-secret" not in str(told.value)
