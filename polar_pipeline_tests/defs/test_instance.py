"""Homes that many processes make at once; odd paths; databases that are damaged, newer or older."""

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance import InstanceRef

from polar_pipeline.defs.instance import DATABASES, open_instance, prepare_home, settings_file
from polar_pipeline.errors import InputError
from polar_pipeline.storage.home import Home
from polar_pipeline.storage.lock import serving
from polar_pipeline_tests.conftest import polar
from polar_pipeline_tests.storage.test_lock import holder

OPEN = """
import sys
from pathlib import Path
import dagster as dg
from polar_pipeline.defs.instance import open_instance, prepare_home
from polar_pipeline.storage.home import Home

@dg.asset
def made() -> int:
    return 1

input()
home = Home(Path(sys.argv[1]))
prepare_home(home)
with open_instance(home.dagster) as instance:
    assert dg.materialize([made], instance=instance, raise_on_error=True).success
print("worked")
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def processes(home: Home, count: int) -> "list[subprocess.Popen[str]]":
    """Processes that open `home` as soon as a line comes."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return [subprocess.Popen([sys.executable, "-c", OPEN, str(home.root)], text=True, **pipes) for _ in range(count)]


def go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(3))
def test_many_processes_make_one_home_at_once(home: Home, attempt: int) -> None:
    started = processes(home, 6)
    time.sleep(4)
    for process in started:
        go(process)
    for process in started:
        out, error = process.communicate(timeout=120)
        assert out == "worked\n", error
    with open_instance(home.dagster) as instance:
        assert instance.get_runs_count() == 6
    assert not list(home.dagster.glob(".new-*"))


@pytest.mark.slow
def test_a_home_works_however_many_of_its_makers_were_killed(home: Home) -> None:
    chance = random.Random(3)
    for _ in range(3):
        started = processes(home, 6)
        time.sleep(4)
        for process in started:
            go(process)
        for process in started[:5]:
            time.sleep(chance.uniform(0, 0.5))
            process.send_signal(signal.SIGKILL)
        out, error = started[5].communicate(timeout=120)
        assert out == "worked\n", error
        for process in started:
            process.kill()
            process.communicate()
        shutil.rmtree(home.dagster / "schedules")  # so that there is something to be made again
        (home.dagster / "history" / "runs.db").unlink()
    prepare_home(home)
    with open_instance(home.dagster) as instance:
        assert instance.get_runs_count() == 0 and not list(home.dagster.glob(".new-*"))


@pytest.mark.parametrize("name", ["100%", "%41", "what?", "a#b", "two words", "größe 中", "[x]*", "a;b&c=d'\"e"])
def test_a_home_may_have_any_path(tmp_path: Path, name: str) -> None:
    home = Home(tmp_path / name / "home")
    environment = prepare_home(home)

    @dg.asset
    def made() -> int:
        return 1

    with open_instance(home.dagster) as instance:
        assert instance.get_settings("concurrency")  # its dagster.yaml is read
        assert dg.materialize([made], instance=instance).success
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(environment["DAGSTER_HOME"])) as instance:  # as servers do
        assert instance.get_runs_count() == 1
        assert instance.get_latest_materialization_event(made.key)
    assert {str(file.relative_to(home.dagster)) for file in home.dagster.rglob("*.db")} >= set(DATABASES)
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", DATABASES)
@pytest.mark.parametrize("damage", ["garbage", "cut off", "page"])
def test_a_damaged_database_is_named_with_the_remedy(home: Home, name: str, damage: str) -> None:
    prepare_home(home)
    path = home.dagster / name
    content = bytearray(path.read_bytes())
    if damage == "page":
        content[4096 : 2 * 4096] = b"\xa5" * 4096
    path.write_bytes({"garbage": b"nothing " * 900, "cut off": content[:5000], "page": content}[damage])
    with pytest.raises(InputError, match=rf"^{re.escape(str(path))} is damaged .*move it away"):
        prepare_home(home)
    path.unlink()
    prepare_home(home)


@pytest.mark.parametrize("name", DATABASES)
def test_a_database_of_a_newer_dagster_is_named(home: Home, name: str) -> None:
    prepare_home(home)
    with sqlite3.connect(home.dagster / name) as database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    with pytest.raises(
        InputError, match=rf"^{re.escape(str(home.dagster / name))} was written by a newer version of Dagster"
    ):
        prepare_home(home)


def test_databases_of_an_older_dagster_are_backed_up_and_migrated(home: Home) -> None:
    prepare_home(home)
    older = "284a732df317"
    for name in DATABASES:
        with sqlite3.connect(home.dagster / name) as database:
            database.execute("UPDATE alembic_version SET version_num = ?", [older])
            if name.startswith("history/runs/"):
                database.execute("DROP INDEX IF EXISTS idx_asset_event_tags")
    with holder("serving", home, "cpu") as other, pytest.raises(InputError, match=f"in use by .* process {other.pid}"):
        prepare_home(home)
    prepare_home(home)
    for name in DATABASES:
        (backup,) = (home.dagster / "backups").glob(f"*/{name}")
        for path, revision in ((backup, True), (home.dagster / name, False)):
            with sqlite3.connect(path) as database:
                assert (database.execute("SELECT version_num FROM alembic_version").fetchone()[0] == older) is revision
    prepare_home(home)
    assert len(list((home.dagster / "backups").iterdir())) == 1


def test_settings_of_a_home_are_kept_and_a_former_default_is_brought_up_to_date(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    settings = home.dagster / "dagster.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text("telemetry: {enabled: false}\n")
    prepare_home(home)
    assert settings.read_text() == "telemetry: {enabled: false}\n"
    former = {hashlib.sha256(settings.read_bytes()).hexdigest()}
    monkeypatch.setattr("polar_pipeline.defs.instance._SHIPPED_BEFORE", former)
    prepare_home(home)
    assert settings.read_bytes() == settings_file().read_bytes()


@pytest.mark.parametrize(
    "text", ["run_queue: {max_concurrent_runs: 1}\nconcurrency: {runs: {max_concurrent_runs: 2}}", "a: [", "colour: 3"]
)
def test_settings_that_are_not_valid_are_named(home: Home, text: str) -> None:
    home.dagster.mkdir(parents=True)
    (home.dagster / "dagster.yaml").write_text(text)
    with pytest.raises(InputError, match=r"dagster.yaml is not valid: .*; correct it, or delete it"):
        prepare_home(home)


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare, to mount a home read-only")
@pytest.mark.parametrize("command", [["run", "--all"], ["ui"]])
def test_a_read_only_home_is_one_sentence(home: Home, command: list[str]) -> None:
    prepare_home(home)
    mounts = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
    shell = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounts, "sh", str(home.root)]
    if subprocess.run([*shell, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a test mount anything")
    polar_command = [sys.executable, "-m", "polar_pipeline", *command, "--profile", "demo"]
    environment = {**os.environ, "POLAR_HOME": str(home.root)}
    done = subprocess.run([*shell, *polar_command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert re.fullmatch(rf"polar: .*{home.root} cannot be written \(Read-only file system\): .*\n", done.stderr), (
        done.stderr
    )


def test_a_second_run_of_a_profile_is_refused(home: Home) -> None:
    with holder("writing", home, "demo") as other:
        done = polar(home.root, "run", "--all", "--profile", "demo", check=False)
    assert done.returncode == 3
    assert f"is in use by polar run with profile demo, process {other.pid}" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    with serving(home, "demo"):
        done = polar(
            home.root, "ui", "--profile", "demo", "--dagster-port", "3977", "--mlflow-port", "5977", check=False
        )
    assert done.returncode == 3 and f"is in use by polar ui with profile demo, process {os.getpid()}" in done.stderr
