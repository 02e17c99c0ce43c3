"""The store behind MLflow's client: a sqlite file, created and migrated here, another database, or a server."""

import errno
import logging
import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polar_pipeline.errors import EnvironmentProblem, InputError
from polar_pipeline.storage.files import is_full, write_atomic, write_atomic_with

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow retries for minutes by default, and a step would wait that long for a server that is gone
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
# MLflow's page then opens with runs and metrics, not with traces of prompts
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}


def sqlite_url(database: Path) -> str:
    """The URL of a sqlite file, whatever characters its path has.

    The driver is named because MLflow creates a folder of the quoted name for URLs that start with `sqlite:///`.
    """
    from sqlalchemy import URL

    return URL.create("sqlite+pysqlite", database=str(database)).render_as_string(hide_password=False)


def sqlite_file(uri: str) -> Path | None:
    """The file of a sqlite URL, or None for other stores."""
    if not uri.startswith("sqlite"):
        return None
    from sqlalchemy import make_url

    database = make_url(uri).database
    return Path(database).absolute() if database else None


def without_password(uri: str) -> str:
    """The address without user and password, for links and messages."""
    scheme, mark, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{mark}{host.rpartition('@')[2]}{slash}{path}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; it ends with the process that holds it."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        yield


def open_store(uri: str) -> "MlflowClient":
    """A client of the store at `uri` (http(s), or a database's URL). The caller holds the store's lock.

    Raises EnvironmentProblem for a sqlite file that cannot be used, and whatever libraries raise for other stores.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    file = sqlite_file(uri)
    if file and file.exists():
        _revision(file)  # a damaged file is refused before MLflow is imported, which takes seconds
    from mlflow import MlflowClient

    # the tracker reports failures, in one line each
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    if file:
        return _open_sqlite(file)
    if not uri.startswith("http"):
        _connect_once(uri)
    client: MlflowClient = MlflowClient(tracking_uri=uri)
    client.search_experiments(max_results=1)
    return client


def explained(uri: str, error: Exception) -> InputError:
    """The error that says why a store cannot be opened, and what to do."""
    if isinstance(error, InputError):
        return error
    file = sqlite_file(uri)
    path = file or getattr(error, "filename", None) or "the home"
    if is_full(error, file.parent if file else None):
        return EnvironmentProblem(f"{path} cannot be written, its disk is full: free space, or use another disk.")
    refused = isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    if refused or "readonly database" in str(error):
        return EnvironmentProblem(f"{path} cannot be written: allow it, or use a home that can be written.")
    if file:
        return _unusable(file, first_line(error))
    return EnvironmentProblem(
        f"the MLflow tracking store {without_password(uri)} cannot be used ({first_line(error)}): start or mend it, "
        "or unset MLFLOW_TRACKING_URI to track in the home."
    )


def first_line(error: BaseException) -> str:
    """What went wrong, in one short line without user and password in URLs.

    Where the system refused a connection, that is said, and not the libraries' words around it.
    """
    cause: BaseException | None = error
    while cause is not None:
        error = cause if isinstance(cause, OSError) else error
        cause = cause.__cause__ or cause.__context__
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return re.sub(r"//[^/\s@]+@", "//", line)[:200]


def find_experiment(client: "MlflowClient", name: str, artifacts: Path | None) -> str:
    """The id of the experiment, which is created if it is new, and restored if it was deleted in MLflow's UI.

    `artifacts` is where a new experiment keeps files; None leaves that to the server.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)  # finds deleted ones too
    if found is None:
        location = artifacts.as_uri() if artifacts else None
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT_TAGS))
        except MlflowException:  # another host was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def follow_moved_home(database: Path, experiment: str, artifacts: Path) -> None:
    """Point an experiment of a home that was copied or moved to the files in this home, not to those in the old one."""
    new = artifacts.as_uri()
    with closing(sqlite3.connect(database)) as connection, connection:
        found = connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = ?", [experiment])
        (old,) = found.fetchone()
        if old == new or not str(old).startswith("file:"):
            return
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", [new, experiment])
        connection.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
            "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
            [new, len(old) + 1, experiment, len(old), old],
        )


def is_old_store(file: Path) -> bool:
    """Whether a sqlite store was written by an older MLflow.

    Raises EnvironmentProblem for a damaged file, or one of a newer MLflow.
    """
    if not file.exists() or file.stat().st_size == 0:
        return False
    revision = _revision(file)
    try:
        with closing(_read_only(file)) as connection:
            (state,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        state = str(error)
    if state != "ok":
        raise _unusable(file, " ".join(str(state).split()))
    return _is_old(file, revision)


def open_runs(database: Path) -> dict[str, dict[str, str]]:
    """The tags of the RUNNING runs in a sqlite store by their ids, without importing MLflow.

    Raises EnvironmentProblem if the file cannot be read.
    """
    if not database.exists() or _revision(database) is None:
        return {}
    found: dict[str, dict[str, str]] = {}
    try:
        with closing(_read_only(database)) as connection:
            rows = connection.execute(
                "SELECT run_uuid, key, value FROM runs JOIN tags USING (run_uuid) WHERE status = 'RUNNING'"
            )
            for run, key, value in rows:
                found.setdefault(run, {})[key] = value
    except sqlite3.Error as error:
        raise _unusable(database, str(error)) from error
    return found


def _open_sqlite(file: Path) -> "MlflowClient":
    from mlflow import MlflowClient
    from sqlalchemy import event

    for left in file.parent.glob(f".{file.name}.*"):  # of a process that was killed: the lock is ours
        left.unlink()
    if not file.exists() or file.stat().st_size == 0:
        _write_beside(file, lambda _: None)
    elif _is_old(file, revision := _revision(file)):
        _migrate(file, revision)
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # stays with the file; commits wait for the disk once, not thrice
    client: Any = MlflowClient(tracking_uri=sqlite_url(file))
    engine = client._tracking_client.store.engine
    # with this no commit waits: a power failure may cost the last runs, but never damages the file
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous=NORMAL"))
    engine.dispose()
    return client  # type: ignore[no-any-return]


def _revision(file: Path) -> str | None:
    """The schema revision in a database file, None without tables. Raises EnvironmentProblem if it is no database."""
    try:
        with closing(_read_only(file)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            found = connection.execute("SELECT version_num FROM alembic_version") if "alembic_version" in tables else []
            revisions = [str(revision) for (revision,) in found]
    except sqlite3.Error as error:
        raise _unusable(file, str(error)) from error
    if tables and (not revisions or "experiments" not in tables):
        raise _unusable(file, "it has no tables of MLflow")
    return revisions[0] if revisions else None


def _migrate(file: Path, revision: str | None) -> None:
    """Bring an older schema up to date, on a copy that replaces the file."""
    import mlflow

    with closing(sqlite3.connect(file, timeout=5)) as connection:
        try:  # this also empties the write-ahead log, and fails while another process has the file open
            connection.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError as error:
            raise EnvironmentProblem(
                f"{file} has to be migrated to MLflow {mlflow.__version__} while no other process has it open "
                f"({error}): stop `polar ui` and other runs, and start again."
            ) from error
    write_atomic(file.with_name(f"{file.name}.{revision}.bak"), file.read_bytes())
    _write_beside(file, lambda new: new.write_bytes(file.read_bytes()))


def _is_old(file: Path, revision: str | None) -> bool:
    """Whether a schema is older than that of the installed MLflow. Raises EnvironmentProblem for a newer one."""
    import mlflow
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils

    scripts = ScriptDirectory.from_config(utils._get_alembic_config(""))
    if revision == scripts.get_current_head():
        return False
    if revision is not None and revision not in {script.revision for script in scripts.walk_revisions()}:
        raise EnvironmentProblem(
            f"{file} was written by a newer MLflow (schema {revision}) than the installed {mlflow.__version__}: "
            "upgrade mlflow, or move the file away to begin a new one."
        )
    return True


def _write_beside(file: Path, fill: Callable[[Path], object]) -> None:
    """Create or migrate tables in a file beside `file` and rename it: a kill in between leaves `file` as it was."""
    from mlflow.store.db import utils
    from sqlalchemy import create_engine, event

    def relax(connection: sqlite3.Connection, _: object) -> None:
        """Never wait for the disk: the file is written in full before anybody sees it."""
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA journal_mode=MEMORY")

    def build(new: Path) -> None:
        fill(new)
        engine = create_engine(sqlite_url(new))
        event.listen(engine, "connect", relax)
        try:  # as `mlflow db upgrade` and MLflow's store do with an older and with an empty database
            if utils._is_empty_database(engine):
                utils._initialize_tables(engine)
            else:
                utils._upgrade_db(engine)
        finally:
            engine.dispose()

    write_atomic_with(file, build)


def _connect_once(uri: str) -> None:
    """Raise what keeps a database from answering; MLflow itself would try for minutes."""
    from sqlalchemy import create_engine

    engine = create_engine(uri)
    with engine.connect():
        pass
    engine.dispose()


def _read_only(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=20)


def _unusable(file: Path, reason: str) -> EnvironmentProblem:
    return EnvironmentProblem(
        f"{file} cannot be used as MLflow's database ({reason}): restore it, or move it away to begin a new one."
    )
