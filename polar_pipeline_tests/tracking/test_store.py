"""Stores that are new, old, newer, damaged or in strange places; processes that meet in an empty one."""

import errno
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from sqlalchemy import create_engine

from polar_pipeline.errors import InputError
from polar_pipeline.tracking.mlflow_tracker import MlflowTracker
from polar_pipeline.tracking.store import explained, open_runs, sqlite_file, sqlite_url
from polar_pipeline_tests.tracking.stores import STEP, all_runs, another, mlflow_server, steps, tracker

NAMES = ["a%20b", "100%", "what?x=1", "number#1", "two words", "häuser-家", "a&b=c;d", "it's", "%s{run_id}[0]"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with one run, which takes seconds to make."""
    home = tmp_path_factory.mktemp("made")
    with tracker(home).step(STEP):
        pass
    return home / "mlflow.db"


def copied(made: Path, home: Path) -> Path:
    home.mkdir(exist_ok=True)
    with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(home / "mlflow.db")) as copy:
        source.backup(copy)
    return home / "mlflow.db"


@pytest.mark.parametrize("name", NAMES)
def test_a_home_may_have_any_name(made: Path, tmp_path: Path, name: str) -> None:
    home = tmp_path / name
    database = copied(made, home)
    assert sqlite_file(sqlite_url(database)) == database
    with tracker(home).step(another()) as run:
        run.log_artifact("a.txt", b"content")
    client = MlflowClient(sqlite_url(database))
    found = client.get_run(run.links["mlflow_run_id"])
    assert found.info.status == "FINISHED"
    fetched = client.download_artifacts(found.info.run_id, "a.txt", str(tmp_path))
    assert Path(fetched).read_bytes() == b"content"
    inside = {file.name for file in home.iterdir()} - {"mlflow.db-wal", "mlflow.db-shm"}
    assert inside == {"mlflow.db", "mlflow.lock", "mlflow"}
    assert {file.name for file in tmp_path.iterdir()} == {name, "a.txt"}  # no folder of a quoted name beside it


@pytest.mark.slow
def test_a_home_of_a_strange_name_can_be_created_and_served(tmp_path: Path) -> None:
    home = tmp_path / "50% what?#1 häuser"
    with tracker(home).step(STEP) as run:
        run.log_artifact("a.txt", b"content")
    with mlflow_server(home) as (address, _):
        client = MlflowClient(address)
        assert client.get_run(run.links["mlflow_run_id"]).info.status == "FINISHED"
        assert [file.path for file in client.list_artifacts(run.links["mlflow_run_id"])] == ["a.txt"]
        remote = MlflowTracker(address, home / "mlflow", "polar")
        with remote.step(another("b")) as other:
            other.log_artifact("b.txt", b"b")
    assert [run.info.status for run in steps(home)] == ["FINISHED", "FINISHED"]
    assert (home / "mlflow" / other.links["mlflow_run_id"] / "artifacts" / "b.txt").read_bytes() == b"b"
    assert [file.name for file in tmp_path.iterdir()] == [home.name]


def test_a_home_that_was_copied_writes_into_itself(tmp_path: Path) -> None:
    with tracker(tmp_path / "one").step(STEP) as run:
        run.log_artifact("a.txt", b"a")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    before = sorted((tmp_path / "one" / "mlflow").rglob("*"))
    mine = tracker(tmp_path / "two")
    with mine.step(another()) as other:
        other.log_artifact("b.txt", b"b")
    assert sorted((tmp_path / "one" / "mlflow").rglob("*")) == before
    for run_id, name in ((run.links["mlflow_run_id"], "a.txt"), (other.links["mlflow_run_id"], "b.txt")):
        client = mine.connect()[0]
        assert [file.path for file in client.list_artifacts(run_id)] == [name]
        assert client.get_run(run_id).info.artifact_uri.startswith((tmp_path / "two").as_uri())


# Databases of other versions, and damaged ones


def old_database(database: Path, revision: str = "cbc13b556ace") -> str:
    """A database as an older MLflow left it, with one experiment; returns its revision."""
    from alembic import command
    from mlflow.store.db import utils
    from mlflow.store.tracking.dbmodels.initial_models import Base

    engine = create_engine(sqlite_url(database))
    Base.metadata.create_all(engine)
    config = utils._get_alembic_config(str(engine.url))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "INSERT INTO experiments(name, artifact_location, lifecycle_stage) VALUES('old','x','active')"
        )
    return revision


def test_a_database_of_an_older_mlflow_is_backed_up_and_migrated(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    revision = old_database(database)
    before = database.read_bytes()
    client, _ = tracker(tmp_path).connect()
    assert client.get_experiment_by_name("old") is not None
    with tracker(tmp_path).step(STEP):
        pass
    assert [run.info.status for run in steps(tmp_path)] == ["FINISHED"]
    assert (tmp_path / f"mlflow.db.{revision}.bak").read_bytes() == before
    assert not list(tmp_path.glob(".mlflow.db*"))


def test_an_older_database_that_is_in_use_is_not_migrated_under_its_user(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    old_database(database)
    with closing(sqlite3.connect(database)) as user:
        user.execute("PRAGMA journal_mode=WAL")
        user.execute("SELECT * FROM experiments").fetchall()
        with pytest.raises(InputError, match=r"has to be migrated .* stop `polar ui`"):
            tracker(tmp_path).connect()
    tracker(tmp_path).connect()


def _migrate_and_die(home: Path) -> None:
    from mlflow.store.db import utils

    upgrade = utils._upgrade_db

    def and_die(engine: object) -> None:
        upgrade(engine)
        os.kill(os.getpid(), signal.SIGKILL)

    utils._upgrade_db = and_die
    tracker(home).connect()


@pytest.mark.slow
def test_a_migration_that_was_killed_is_done_by_the_next(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    revision = old_database(database)
    before = database.read_bytes()
    process = multiprocessing.get_context("spawn").Process(target=_migrate_and_die, args=(tmp_path,))
    process.start()
    process.join(120)
    assert process.exitcode == -9
    assert database.read_bytes() == before
    tracker(tmp_path).connect()
    assert (tmp_path / f"mlflow.db.{revision}.bak").read_bytes() == before
    assert not list(tmp_path.glob(".mlflow.db*"))


def test_a_database_of_a_newer_mlflow_is_refused_with_the_remedy(made: Path, tmp_path: Path) -> None:
    database = copied(made, tmp_path)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = 'fffffffffff0'")
    before = database.read_bytes()
    with pytest.raises(InputError, match=r"newer MLflow .*: upgrade mlflow, or move the file away") as error:
        tracker(tmp_path).connect()
    assert str(database) in str(error.value) and database.read_bytes() == before
    assert not list(tmp_path.glob("*.bak"))


def damaged(database: Path, how: str) -> None:
    if how == "another file":
        database.write_text("not a database, whatever its name says\n" * 100)
    elif how == "truncated":
        os.truncate(database, database.stat().st_size // 2)
    elif how == "a folder":
        database.unlink()
        database.mkdir()
    elif how == "another database":
        database.unlink()
        with closing(sqlite3.connect(database)) as connection:
            connection.execute("CREATE TABLE mine(x)")
    else:
        content = bytearray(database.read_bytes())
        content[100:4096] = bytes(3996)  # the first page, which lists the tables
        database.write_bytes(content)


@pytest.mark.parametrize("how", ["another file", "truncated", "a folder", "another database", "overwritten"])
def test_a_damaged_database_is_one_sentence_at_once(made: Path, tmp_path: Path, how: str) -> None:
    database = copied(made, tmp_path)
    damaged(database, how)
    script = (
        "import pathlib, time; from polar_pipeline_tests.tracking.stores import tracker\n"
        "from polar_pipeline.errors import InputError\n"
        f"mine = tracker(pathlib.Path({str(tmp_path)!r}))\n"
        "for call in (mine.connect, mine.close_killed):\n"
        "    started = time.monotonic()\n"
        "    try:\n"
        "        call()\n"
        "    except InputError as error:\n"
        "        print(error)\n"
        "    assert time.monotonic() - started < 20\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    for line in done.stdout.splitlines():
        assert line.startswith(f"{database} cannot be used as MLflow's database (") and line.endswith(
            "begin a new one."
        )
    assert len(done.stdout.splitlines()) == 2


def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with tracker(tmp_path).step(STEP):
        pass
    assert [run.info.status for run in steps(tmp_path)] == ["FINISHED"]


def test_other_stores_that_cannot_be_opened_are_named_without_their_password(tmp_path: Path) -> None:
    for uri in ("postgresql+psycopg2://me:secret@127.0.0.1:9/mlflow", "nonsense://me:secret@host/x"):
        with pytest.raises(InputError, match="MLFLOW_TRACKING_URI") as error:
            MlflowTracker(uri, tmp_path / "mlflow", "polar").connect()
        assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/h/mlflow.lock"), "cannot be written: allow it"),
        (OSError(errno.EROFS, "Read-only file system", "/h/mlflow.lock"), "cannot be written: allow it"),
        (OSError(errno.ENOSPC, "No space left on device"), "its disk is full: free space"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "cannot be written: allow it"),
        (InputError("file x: mend it."), "file x: mend it."),
    ],
)
@pytest.mark.parametrize("uri", ["sqlite:////h/mlflow.db", "http://server"])
def test_what_the_system_refuses_is_said_with_the_remedy(error: Exception, said: str, uri: str) -> None:
    found = str(explained(uri, error))
    assert said in found and "None" not in found and "\n" not in found


def test_a_database_elsewhere_keeps_its_files_in_the_home(tmp_path: Path) -> None:
    mine = MlflowTracker(f"sqlite:///{tmp_path}/shared/all.db", tmp_path / "home" / "artifacts", "polar")
    with mine.step(STEP) as run:
        run.log_artifact("a.txt", b"a")
    assert (tmp_path / "shared" / "all.db").exists()
    assert len(list((tmp_path / "home" / "artifacts").rglob("a.txt"))) == 1


def test_open_runs_are_seen_without_mlflow(made: Path, tmp_path: Path) -> None:
    assert not open_runs(tmp_path / "mlflow.db")
    database = copied(made, tmp_path)
    assert open_runs(database)  # the parent, which nobody ended
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE runs SET status = 'FINISHED'")
    assert not open_runs(database)
    database.write_text("damaged" * 100)
    with pytest.raises(InputError, match="cannot be used"):
        open_runs(database)


# Processes that meet in an empty home


def _one_step(home: Path, number: int) -> None:
    with tracker(home).step(another(partition=str(number))):
        pass


@pytest.mark.slow
def test_processes_that_first_touch_an_empty_store_do_not_collide(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_one_step, args=(tmp_path, number)) for number in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    assert [run.info.status for run in steps(tmp_path)] == ["FINISHED"] * 8
    assert not list(tmp_path.glob(".mlflow.db.*"))


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 5, 20])
def test_a_home_that_was_killed_in_the_first_migration_works_again(tmp_path: Path, after: int) -> None:
    process = multiprocessing.get_context("spawn").Process(target=_die_in_migration, args=(tmp_path, after))
    process.start()
    process.join(120)
    assert process.exitcode == -9
    assert list(tmp_path.glob(".mlflow.db.*")) and not (tmp_path / "mlflow.db").exists()
    with tracker(tmp_path).step(STEP):
        pass
    assert [run.info.status for run in steps(tmp_path)] == ["FINISHED"]
    assert len(all_runs(tmp_path)) == 2
    assert not list(tmp_path.glob(".mlflow.db.*"))


def _die_in_migration(home: Path, after: int) -> None:
    """SIGKILL once so many tables were made."""
    from alembic.operations import Operations

    create, count = Operations.create_table, 0

    def counted(self: Operations, *given: object, **named: object) -> object:
        nonlocal count
        count += 1
        if count > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return create(self, *given, **named)

    Operations.create_table = counted  # type: ignore[method-assign]
    tracker(home).connect()
