"""The Dagster instance of a home: its settings in `dagster/dagster.yaml`, and its databases.

The databases are made, checked and migrated here. A storage that the settings name, as Postgres, is never replaced.
"""

import functools
import hashlib
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterInvalidConfigError
from dagster._core.instance import InstanceRef
from dagster._core.instance.config import dagster_instance_config
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy import Connection, Engine, create_engine, event

import polar_pipeline
from polar_pipeline.errors import EnvironmentProblem, InputError
from polar_pipeline.storage.files import is_full, write_atomic
from polar_pipeline.storage.home import Home
from polar_pipeline.storage.lock import creating, who_works
from polar_pipeline.storage.usage import SQLITE

DATABASES = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")
_STORAGE_SETTINGS = {"storage", "run_storage", "event_log_storage", "schedule_storage", "instance_class"}
# dagster.yaml as it was shipped before: a copy that nobody changed is brought up to date
_SHIPPED_BEFORE = {
    "2a2cfbba6f67d1814c4886ad7703a3a0fa6940574cc98e9ebed2924b63f0a13f",
    "4855105933d6c456b5ed101db6deeb1a3a30b32477f9dd016f7fb61d529f31ca",
    "6cfc3b794748dcb5aa8f49f9bf9434b2b8fd8bfa39fee073a47d9d4981798a31",
}
_CHECKED_WHOLE = 64 << 20  # bytes up to which a database is checked page by page, which takes milliseconds
_MOST_ENGINES = 8  # one per run that is looked at, and the index; the one that was made first is dropped
_SPECIAL = re.compile(r"[%?*\[\]]")  # Dagster puts paths into database addresses and file patterns without quoting them


def prepare_home(home: Home) -> dict[str, str]:
    """Make or check the instance of a home; returns the environment that processes working in this home need.

    Any number of processes may do so at once, and any of them may be killed meanwhile. A `dagster.yaml` that is there
    is kept, so that a home can have settings of its own. Databases of an older Dagster are backed up and migrated.

    Raises EnvironmentProblem if the home cannot be written, a database is damaged or was written by a newer Dagster, or
    the storage that the settings name cannot be reached; InputError if `dagster.yaml` is not valid.
    """
    with creating(home):
        settings = home.dagster / "dagster.yaml"
        if not settings.exists() or hashlib.sha256(settings.read_bytes()).hexdigest() in _SHIPPED_BEFORE:
            write_atomic(settings, settings_file().read_bytes())
        if storage_settings(home.dagster):
            with open_instance(home.dagster):  # makes the tables of the storage that the settings name
                pass
        else:
            make_missing(home.dagster)
            if any([is_outdated(home.dagster / name) for name in DATABASES]):
                migrate(home)
    folder = plain_path(home.dagster)
    return {"POLAR_HOME": str(home.root), "DAGSTER_HOME": str(folder), "MLFLOW_DISABLE_TELEMETRY": "true"}


def open_instance(folder: Path) -> dg.DagsterInstance:
    """The instance in `folder`, which is a home's `dagster`. Raises EnvironmentProblem if it does not open."""
    own = storage_settings(folder)
    folder = plain_path(folder)
    with _explained(folder, own):
        return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder), overrides={} if own else _faster(folder)))


def settings_file() -> Path:
    """The `dagster.yaml` that new homes get: inside an installed package, or beside it in a checkout."""
    packaged = Path(str(resources.files("polar_pipeline") / "dagster.yaml"))
    return packaged if packaged.is_file() else Path(polar_pipeline.__file__).parents[1] / "dagster.yaml"


def runtime_folder(folder: Path) -> Path:
    """A private folder of this user, outside of `folder`, for what needs a short and plain path."""
    base = Path(tempfile.gettempdir()) / f"polar-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    if base.is_symlink() or base.stat().st_uid != os.getuid():
        raise EnvironmentProblem(f"{base} belongs to somebody else: set TMPDIR to a folder of your own.")
    private = base / hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    private.mkdir(mode=0o700, exist_ok=True)
    return private


def plain_path(folder: Path) -> Path:
    """`folder`, or a link to it if its path has characters that Dagster's database addresses would misread."""
    if not _SPECIAL.search(str(folder)):
        return folder
    link = runtime_folder(folder) / "dagster"
    if not link.is_symlink():
        new = link.with_name(f"dagster.{os.getpid()}")
        new.unlink(missing_ok=True)
        new.symlink_to(folder)
        new.replace(link)
    return link


def storage_settings(folder: Path) -> dict[str, Any]:
    """The settings in `dagster.yaml` that choose where Dagster stores; empty for its sqlite files below `folder`."""
    try:
        settings, _ = dagster_instance_config(str(plain_path(folder)))
    except Exception as error:  # not YAML, unknown keys, keys that exclude each other
        problems = error.errors if isinstance(error, DagsterInvalidConfigError) else []
        reason = "; ".join(problem.message for problem in problems) or str(error)
        raise InputError(
            f"{folder / 'dagster.yaml'} is not valid: {' '.join(reason.split())}; correct it, or delete it to get the "
            f"default one."
        ) from error
    return {name: value for name, value in settings.items() if name in _STORAGE_SETTINGS and value}


def _faster(folder: Path) -> dict[str, Any]:
    """Our event log in place of Dagster's own, which writes the same files with less work."""
    where = {"base_dir": str(folder / "history" / "runs")}  # where Dagster itself puts it
    return {"event_log_storage": {"module": EventLog.__module__, "class": EventLog.__name__, "config": where}}


@contextmanager
def _explained(folder: Path, own: dict[str, Any]) -> Iterator[None]:
    """Say in one sentence why an instance does not open."""
    try:
        yield
    except Exception as error:
        if is_full(error, folder):
            raise
        driver = _driver_error(error)
        reason = " ".join(str(driver or error).split())
        if own:
            raise EnvironmentProblem(
                f"the storage that {folder / 'dagster.yaml'} names ({', '.join(own)}) does not open: {reason}; correct "
                f"the settings, or start the database."
            ) from error
        if isinstance(driver, sqlite3.Error):
            raise EnvironmentProblem(
                f"Dagster's databases in {folder} do not open: {reason}; allow reading and writing them."
            ) from error
        raise


def _driver_error(error: BaseException | None) -> BaseException | None:
    """What the database's driver said, behind the errors of those that called it."""
    while error is not None:
        if found := getattr(error, "orig", None):
            return found if isinstance(found, BaseException) else None
        error = error.__cause__ or error.__context__
    return None


def make_missing(folder: Path) -> None:
    """Make missing databases in a temporary folder and rename them into place: a kill leaves none half made."""
    for left in folder.glob(".new-*"):  # of a killed process: nobody else is here
        shutil.rmtree(left)
    missing = [name for name in DATABASES if not (folder / name).exists()]
    if not missing:
        return
    new = Path(tempfile.mkdtemp(prefix=".new-", dir=plain_path(folder)))
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(new), config_dir=str(plain_path(folder)))):
        pass
    for name in missing:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        for journal in (f"{target}-wal", f"{target}-shm"):  # of a database that was moved away
            Path(journal).unlink(missing_ok=True)
        (new / name).replace(target)
    shutil.rmtree(new)


def is_outdated(path: Path, whole: bool = False) -> bool:
    """Whether a database was written by an older Dagster. Raises EnvironmentProblem if it is damaged or newer."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True, timeout=30)) as database:
            if whole or path.stat().st_size <= _CHECKED_WHOLE:
                (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
                if state != "ok":
                    raise sqlite3.DatabaseError(state)
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            rows = (
                database.execute("SELECT version_num FROM alembic_version").fetchall()
                if "alembic_version" in tables
                else []
            )
    except sqlite3.OperationalError as error:
        if is_full(error, path):
            raise
        raise EnvironmentProblem(f"{path} cannot be opened ({error}): allow reading and writing it.") from error
    except sqlite3.DatabaseError as error:
        raise EnvironmentProblem(
            f"{path} is damaged ({' '.join(str(error).split())}): restore it from a backup, or move it away together "
            f"with its -wal and -shm files; Dagster's history is then lost, what was computed stays."
        ) from error
    revision = rows[0][0] if rows else None
    script = _revisions()
    if revision == script.as_revision_number("head"):
        return False
    if revision is not None and revision not in {entry.revision for entry in script.walk_revisions()}:
        raise EnvironmentProblem(
            f"{path} was written by a newer version of Dagster than {dg.__version__}: update this installation, or use "
            f"another home."
        )
    return bool(tables)


def is_whole(path: Path) -> bool:
    """Whether every page of a sqlite database can be read."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)) as database:
            return bool(database.execute("PRAGMA quick_check(1)").fetchone() == ("ok",))
    except sqlite3.DatabaseError:
        return False


@functools.cache
def _revisions() -> Any:
    from alembic.script import ScriptDirectory
    from dagster._core.storage.runs.sqlite import sqlite_run_storage
    from dagster._core.storage.sql import get_alembic_config

    return ScriptDirectory.from_config(get_alembic_config(sqlite_run_storage.__file__))


def migrate(home: Home) -> None:
    """Copy the databases aside, then bring them to the schema of the installed Dagster."""
    others = [worker for worker in who_works(home) if worker.pid != os.getpid()]
    if others:
        raise EnvironmentProblem(
            f"the databases in {home.dagster} need a migration, and are in use by {others[0]}: end it first."
        )
    backup = home.dagster / "backups" / time.strftime("%Y-%m-%d-%H%M%S")
    for name in ("history", "schedules"):
        shutil.copytree(home.dagster / name, backup / name)
    folder = plain_path(home.dagster)
    with _explained(folder, {}), dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder))) as instance:
        instance.upgrade()
        instance.reindex()


class EventLog(SqliteEventLogStorage):
    """Dagster's sqlite event log with one connection for each database, instead of an engine for each statement.

    A language's run stores 350 times: a new engine compiles every statement anew, and each commit and each closing of a
    last connection waits for the disk. The files are the same: one database per run and an index, below `base_dir`.
    """

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        self._engines: dict[str, Engine] = {}
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "EventLog":
        """Made by the instance from its settings."""
        return cls(inst_data=inst_data, **config_value)

    def dispose(self) -> None:
        """Close all connections, which moves the write-ahead logs into the databases."""
        while self._engines:
            self._engines.popitem()[1].dispose()
        super().dispose()

    def delete_events(self, run_id: str) -> None:
        """Delete a run's events from the index, and its whole database, which Dagster would leave empty on the disk."""
        with self.index_connection() as connection:
            self.delete_events_for_run(connection, run_id)
        if run_id in self._engines:
            self._engines.pop(run_id).dispose()
        for end in SQLITE:
            Path(f"{self.path_for_shard(run_id)}{end}").unlink(missing_ok=True)
        self._initialized_dbs.discard(run_id)
        self.free_concurrency_slots_for_run(run_id)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            engine = self._engine(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.begin() as connection:
                yield connection
            # what was written is in the write-ahead log, but this is the file that the UI watches
            os.utime(self.path_for_shard(shard))

    def _engine(self, shard: str) -> Engine:
        if shard not in self._engines:
            while len(self._engines) >= _MOST_ENGINES:
                self._engines.pop(next(iter(self._engines))).dispose()
            engine = create_engine(
                self.conn_string_for_shard(shard), connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS}, pool_size=1
            )
            event.listen(engine, "connect", _write_lightly)
            self._engines[shard] = engine
        return self._engines[shard]


def _write_lightly(connection: Any, _: Any) -> None:
    """With a write-ahead log, a loss of power then costs the last events, and never the database."""
    connection.execute("PRAGMA synchronous = NORMAL")
