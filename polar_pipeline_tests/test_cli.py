"""The command line: exit codes, one sentence for what a person can mend, folders by option, help and completion."""

import functools
import http.server
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from polar_pipeline import __version__
from polar_pipeline.cli import main
from polar_pipeline.cli import polar as group
from polar_pipeline.commands.run import exit_code
from polar_pipeline.defs.processes.runner import Outcome, Task, TaskRunner
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import ExitCode, InputError
from polar_pipeline.task.languages import LANGUAGES
from polar_pipeline_tests.conftest import DATA_DIR, polar, real_data
from polar_pipeline_tests.defs.mini import mini_release

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
            "profile 'dmeo' does not exist: use cpu, demo, gpu, laptop or the path of a YAML file.",
        ),
        (["run", "--profile", "cpu", "--all"], "polar data fetch"),
        (["run", "--all", "--jobs", "0"], "--jobs"),
        (["data", "check", "--language", "xyz", "--profile", "demo"], "'xyz'"),
        (["run", "--all", "--resume"], "No such option"),
        (["data", "check", "--home", ""], "name a folder"),
        (["data", "check", "--home", __file__], "is a file"),
        (["fly"], "No such command 'fly'"),
    ],
)
def test_mistakes(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert call(*arguments) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "home").exists()


LINEAR = """
name: own
description: Quick.
data: bundled
languages: [deu, eng, hin]
backbones: [{name: linear, kind: linear}]
"""

RAISE = """
import sys
from polar_pipeline import cli
from polar_pipeline.defs.project import Project

def broken(profile):
    {statement}

Project.load = broken
sys.argv = ["polar", "run", "--all"]
cli.main()
"""


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Calls `polar` in this process; returns its exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POLAR_HOME", str(tmp_path / "home"))  # and as it was, when the test has ended
    monkeypatch.setenv("POLAR_DATA_DIR", "")

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["polar", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return run


@pytest.fixture
def raising(call: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """Calls a `polar run` in which a statement is executed."""

    def run(statement: str) -> int:
        def broken(profile: str) -> None:
            exec(statement, {})

        monkeypatch.setattr(Project, "load", broken)
        return call("run", "--all")

    return run


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("raise OSError(28, 'No space left on device', '/data/x')", "the disk of /data/x is full: free space there"),
        ("import sqlite3; raise sqlite3.OperationalError('database or disk is full')", "is full: free space there"),
        ("raise RuntimeError('step') from OSError(122, 'Disk quota exceeded', '/x')", "is full: free space there"),
        ("raise PermissionError(13, 'Permission denied', '/x')", "/x cannot be used (Permission denied): allow"),
        ("raise OSError(30, 'Read-only file system', '/x')", "/x cannot be used (Read-only file system): allow"),
        ("raise OSError(5, 'Input/output error', '/x')", "/x cannot be used (Input/output error)"),
        ("import sqlite3; raise sqlite3.DatabaseError('file is not a database')", "run `polar doctor`"),
        ("import sqlite3; raise sqlite3.OperationalError('database is locked')", "(database is locked): run"),
        ("import faiss_that_is_missing", "the package faiss_that_is_missing cannot be imported"),
    ],
)
def test_a_broken_environment_is_one_sentence_and_exit_code_3(
    raising: Callable[[str], int], capsys: pytest.CaptureFixture[str], statement: str, sentence: str
) -> None:
    assert raising(statement) == 3
    said = capsys.readouterr().err
    assert sentence in said and said.startswith("polar: ") and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("raise KeyError('x')", KeyError),
        ("raise FileNotFoundError(2, 'No such file or directory', '/x')", FileNotFoundError),
        ("from polar_pipeline.cli import nothing", ImportError),
        ("import sqlite3; raise sqlite3.OperationalError('near x: syntax error')", sqlite3.OperationalError),
        ("try:\n  raise PermissionError(13, 'dealt with')\nexcept OSError:\n  raise KeyError('x')", KeyError),
    ],
)
def test_a_bug_stays_one(raising: Callable[[str], int], statement: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        raising(statement)


def test_an_interruption_is_exit_code_130(raising: Callable[[str], int], capsys: pytest.CaptureFixture[str]) -> None:
    assert raising("raise KeyboardInterrupt") == 130
    assert capsys.readouterr().err.strip() == "polar: interrupted; what was finished stays."


@pytest.mark.parametrize(("statement", "code"), [("raise KeyError('x')", 1), ("raise OSError(28, 'full', '/x')", 3)])
def test_only_a_bug_shows_its_traceback(statement: str, code: int) -> None:
    command = [sys.executable, "-c", RAISE.replace("{statement}", statement)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code and ("Traceback" in done.stderr) == (code == 1)


def test_a_reader_that_ends_early_is_no_error(tmp_path: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m polar_pipeline profile show gpu | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("failed", "missing", "code"),
    [
        ({}, [], 0),
        ({}, ["deu"], 1),
        ({"deu": ExitCode.SOME_FAILED}, ["deu"], 1),
        ({"deu": ExitCode.WRONG_INPUT}, ["deu"], 1),
        ({"deu": ExitCode.WRONG_INPUT, "eng": ExitCode.SOME_FAILED}, ["deu", "eng"], 1),
        ({"deu": ExitCode.WRONG_INPUT, "eng": ExitCode.WRONG_INPUT}, ["deu", "eng"], 2),
        ({"deu": ExitCode.WRONG_INPUT, "eng": ExitCode.BROKEN_ENVIRONMENT}, ["deu", "eng"], 3),
        ({"deu": ExitCode.BROKEN_ENVIRONMENT}, ["deu"], 3),
    ],
)
def test_how_a_run_ends(project: Project, failed: dict[str, ExitCode], missing: list[str], code: int) -> None:
    outcomes = [Outcome("language_pipeline", name, error="x", exit_code=kind) for name, kind in failed.items()]
    assert exit_code(project, ["deu", "eng"], outcomes, missing) == code


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (InputError("the profile is gone: write it again."), 2, "the profile is gone: write it again."),
        (RuntimeError("storage"), None, ""),
        (OSError(28, "No space left on device", "/x"), 3, "the disk of /x is full"),
    ],
)
def test_what_fails_outside_of_a_step_costs_its_language_and_no_traceback(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int | None, sentence: str
) -> None:
    def broken(self: TaskRunner, task: Task) -> Outcome:
        raise error

    monkeypatch.setattr(TaskRunner, "_execute", broken)
    task = Task("demo", "language_pipeline", "deu")
    if code is None:  # a bug
        with pytest.raises(RuntimeError):
            TaskRunner()(task, print)
        return
    outcome = TaskRunner()(task, print)
    assert (outcome.language, outcome.exit_code) == ("deu", code) and outcome.error.startswith(sentence)


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare, to mount a small disk")
@pytest.mark.parametrize("size", ["900k", "1600k"])  # full before the first language, and in its process
def test_a_disk_that_fills_up_in_a_run_is_one_sentence(tmp_path: Path, size: str) -> None:
    home, own = tmp_path / "home", tmp_path / "own.yaml"
    own.write_text(LINEAR)
    home.mkdir()
    mount = f'mount -t tmpfs -o size={size} tmpfs "$1" && shift && exec "$@"'
    shell = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(home)]
    if subprocess.run([*shell, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a test mount anything")
    command = [sys.executable, "-m", "polar_pipeline", "run", "--language", "deu", "--profile", str(own)]
    done = subprocess.run(
        [*shell, *command, "--home", str(home)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 3, done.stderr
    assert "is full" in done.stderr and "Traceback" not in done.stderr


def test_a_model_that_is_not_there_is_said_before_anything_is_written(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    polar(tmp_path / "home", "profile", "new", str(own), "--from", "demo")
    text = own.read_text(encoding="utf-8")
    own.write_text(text.replace("model: tiny:gemma3", "model: ./gone"), encoding="utf-8")
    done = polar(tmp_path / "home", "run", "--all", "--profile", str(own), check=False)
    assert done.returncode == 2 and not (tmp_path / "home").exists()
    assert "model './gone' of backbone 'tiny_gemma' is no folder: correct its path" in done.stderr


def test_ctrl_c_ends_a_run_soon_and_the_same_command_goes_on(tmp_path: Path) -> None:
    home, profile = tmp_path / "home", tmp_path / "own.yaml"
    profile.write_text(LINEAR)
    arguments = ["run", "--all", "--profile", str(profile), "--jobs", "1"]
    running = subprocess.Popen(
        [sys.executable, "-m", "polar_pipeline", *arguments, "--home", "home"],  # for the workers too
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={name: value for name, value in os.environ.items() if name != "POLAR_HOME"},
    )  # fmt: skip
    results = home / "profiles" / "own"
    try:
        end = time.monotonic() + 120
        while not (results / "tables" / "raw_posts").exists():
            assert time.monotonic() < end and running.poll() is None
            time.sleep(0.05)
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        _, said = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130
    assert "of 3 languages are done; the same command goes on with the rest" in said
    assert said.splitlines()[-1] == "polar: interrupted; what was finished stays."
    assert "Traceback" not in said
    assert len(list((results / "predictions").glob("*.csv"))) < 3  # what had not started was dropped
    polar(home, *arguments)
    assert len(list((results / "predictions").glob("*.csv"))) == 3
    done = polar(home, "run", "--language", "deu", "--profile", str(profile), "--force")
    assert "1 languages are computed again, as --force asks" in done.stdout and "[1/1] deu" in done.stdout


def test_folders_by_option_before_and_after_the_command(
    call: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    release = mini_release(tmp_path / "release", ["deu"])
    check = ["data", "check", "--language", "deu", "--profile", "cpu"]
    for command in (["--home", "other", *check], [*check, "--home", "other"]):
        assert call(*command) == 2
        assert f"{tmp_path / 'other' / 'data' / 'release'} has no release yet" in capsys.readouterr().err
    assert call("--home", "first", *check, "--home", "second") == 2
    assert str(tmp_path / "second") in capsys.readouterr().err
    for command in (["--data", "release", *check], [*check, "--data", "release"]):
        assert call(*command) == 0
        assert capsys.readouterr().out.splitlines()[0] == str(release)
    assert os.environ["POLAR_DATA_DIR"] == str(release)  # which processes that are started get too


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command by its name, groups left out."""
    waiting: list[tuple[str, click.Command]] = [("polar", group)]
    while waiting:
        name, command = waiting.pop()
        if isinstance(command, click.Group):
            waiting += [(f"{name} {one}", command.commands[one]) for one in command.commands]
        else:
            yield name, command


def test_the_help_of_each_command_has_examples_of_it() -> None:
    for name, command in commands():
        lines = command.get_help(click.Context(command, terminal_width=80)).splitlines()
        shown = [line.strip() for line in lines[lines.index("  Examples:") + 1 :]]
        assert shown and all(line.startswith(name) for line in shown), name
        assert max(map(len, lines)) <= 80, name


def test_help_names_the_variables_the_exit_codes_and_the_completion(tmp_path: Path) -> None:
    whole = polar(tmp_path / "home", "--help").stdout
    assert "POLAR_HOME" in whole and "POLAR_DATA_DIR" in whole
    assert all(f"  {code:<3}  " in whole for code in ExitCode)
    assert 'eval "$(_POLAR_COMPLETE=bash_source polar)"' in whole
    for name, command in commands():
        options = {option for parameter in command.params for option in parameter.opts}
        if "--profile" in options:
            assert {"--home", "--data"} <= options, name


def completed(tmp_path: Path, words: str) -> list[str]:
    """What a shell offers for the last of these words, by way of the installed script."""
    script = Path(sys.executable).parent / "polar"
    variables = {"_POLAR_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    done = subprocess.run(
        [script], env={**os.environ, "POLAR_HOME": str(tmp_path / "home"), **variables}, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


def test_completion_of_commands_profiles_and_languages(tmp_path: Path) -> None:
    for file in ("demo2.yaml", "deep/one.yml", "deep.txt"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "home" / "profiles" / "kitchen").mkdir(parents=True)
    assert completed(tmp_path, "polar run --profile de") == ["demo", "deep/one.yml", "demo2.yaml"]
    assert completed(tmp_path, "polar profile show gp") == ["gpu"]
    assert completed(tmp_path, "polar profile new x.yaml --from cp") == ["cpu"]
    assert completed(tmp_path, "polar predict posts.csv --language e") == ["eng"]
    assert completed(tmp_path, "polar synth plan --language ") == list(LANGUAGES)
    assert completed(tmp_path, "polar compare kit") == ["kitchen"]
    assert completed(tmp_path, "polar compare --home elsewhere kit") == ["kit"]  # a folder, as far as bash knows any


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_completion_in_bash(tmp_path: Path) -> None:
    script = (
        'eval "$(_POLAR_COMPLETE=bash_source polar)"; '
        "COMP_WORDS=(polar run --language s); COMP_CWORD=3; _polar_completion polar; echo ${COMPREPLY[@]}"
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == "spa swa"


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
