"""The command line: mistakes are one sentence and exit code 2, and nothing is written; help and tables are readable."""

import functools
import http.server
import threading
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
