"""The command line: mistakes are one sentence and exit code 2, and nothing is written; help and tables are readable."""

import functools
import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from polar_pipeline import __version__
from polar_pipeline_tests.conftest import DATA_DIR, polar, real_data

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "--profile", "demo"], "name languages with --language CODE, or take all of them with --all."),
        (
            ["run", "--profile", "demo", "--all", "--language", "deu"],
            "name languages with --language CODE, or take all",
        ),
        (
            ["run", "--profile", "demo", "--language", "swa"],
            "language 'swa' is not in profile 'demo': use one of deu, eng, hin.",
        ),
        (
            ["run", "--profile", "dmeo", "--all"],
            "profile 'dmeo' does not exist: use cpu, demo, gpu or the path of a YAML file.",
        ),
        (["run", "--profile", "cpu", "--all"], "polar data fetch"),
        (["run", "--all", "--jobs", "0"], "--jobs"),
        (["data", "check", "--language", "xyz", "--profile", "demo"], "'xyz'"),
        (["fly"], "No such command 'fly'"),
    ],
)
def test_mistakes(tmp_path: Path, arguments: list[str], sentence: str) -> None:
    done = polar(tmp_path / "home", *arguments, check=False)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()


DISK = """
import sys
from polar_pipeline import cli
from polar_pipeline.defs.project import Project

def full(profile):
    raise {error}

Project.load = full
sys.argv = ["polar", "run", "--all"]
cli.main()
"""


@pytest.mark.parametrize(
    "error",
    [
        "OSError(28, 'No space left on device', '/data/x')",
        "__import__('sqlite3').OperationalError('database or disk is full')",
    ],
)
def test_a_full_disk_is_one_sentence(error: str) -> None:
    command = [sys.executable, "-c", DISK.replace("{error}", error)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "is full: free space there and start again; what was finished stays." in done.stderr


def test_a_model_that_is_not_there_is_said_before_anything_is_written(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    polar(tmp_path / "home", "profile", "new", str(own), "--from", "demo")
    text = own.read_text(encoding="utf-8")
    own.write_text(text.replace("model: tiny:gemma3", "model: ./gone"), encoding="utf-8")
    done = polar(tmp_path / "home", "run", "--all", "--profile", str(own), check=False)
    assert done.returncode == 2 and not (tmp_path / "home").exists()
    assert "model './gone' of backbone 'tiny_gemma' is no folder: correct its path" in done.stderr


LINEAR = """
name: own
description: Quick.
data: bundled
languages: [deu, eng, hin]
backbones: [{name: linear, kind: linear}]
"""


def test_ctrl_c_ends_a_run_soon_and_resume_goes_on(tmp_path: Path) -> None:
    home, profile = tmp_path / "home", tmp_path / "own.yaml"
    profile.write_text(LINEAR)
    arguments = ["run", "--all", "--profile", str(profile), "--jobs", "1"]
    running = subprocess.Popen(
        [sys.executable, "-m", "polar_pipeline", *arguments],
        env={**os.environ, "POLAR_HOME": str(home)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        end = time.monotonic() + 120
        while not (home / "artifacts" / "raw_posts").exists():
            assert time.monotonic() < end and running.poll() is None
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        _, said = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130
    assert "of 3 languages are done; the same command with --resume goes on" in said
    assert said.splitlines()[-1] == "polar: interrupted; what was finished stays."
    assert "Traceback" not in said
    assert len(list((home / "predictions").glob("*.csv"))) < 3  # what had not started was dropped
    polar(home, *arguments, "--resume")
    assert len(list((home / "predictions").glob("*.csv"))) == 3


def test_version(tmp_path: Path) -> None:
    assert __version__ in polar(tmp_path / "home", "--version").stdout


def test_data_check_prints_a_row_per_language(tmp_path: Path) -> None:
    done = polar(tmp_path / "home", "data", "check", "--profile", "demo")
    assert [line for line in done.stdout.splitlines() if any(code in line for code in ("deu", "eng", "hin"))]
    assert not (tmp_path / "home").exists()


@real_data
def test_data_check_on_the_official_release(tmp_path: Path) -> None:
    done = polar(
        tmp_path / "home", "data", "check", "--language", "pan", "--language", "tur", POLAR_DATA_DIR=str(DATA_DIR)
    )
    assert "1700" in done.stdout and "2364" in done.stdout


@pytest.fixture
def empty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that has nothing."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path_factory.mktemp("empty")))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_fetch_shows_the_licence_and_names_what_is_not_there(tmp_path: Path, empty_server: str) -> None:
    done = polar(tmp_path / "home", "data", "fetch", check=False, POLAR_RELEASE_URL=empty_server)
    assert "CC BY" in done.stdout
    assert done.returncode == 2
    assert empty_server in done.stderr and "Traceback" not in done.stderr
