"""The history of a home: reading it without writing, and deleting runs that are old, in Dagster and in MLflow.

A run that holds the newest materialization of an output is never old: Dagster's "missing" and "stale", and the
automation of the report, come from these.
"""

import re
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import dagster as dg
from dagster._core.instance.types import InstanceType
from dagster._core.launcher.sync_in_memory_run_launcher import SyncInMemoryRunLauncher
from dagster._core.run_coordinator import DefaultRunCoordinator
from dagster._core.storage.event_log import InMemoryEventLogStorage
from dagster._core.storage.noop_compute_log_manager import NoOpComputeLogManager
from dagster._core.storage.root import LocalArtifactStorage
from dagster._core.storage.runs import SqliteRunStorage

from polar_pipeline.defs.instance import DATABASES, open_instance, storage_settings
from polar_pipeline.storage.home import Home
from polar_pipeline.storage.usage import SQLITE, copy_database
from polar_pipeline.tracking.store import open_store, sqlite_url

_PARTS = ("polar/profile", "dagster/partition", "dagster/asset_partition_range_start")  # tags that tell runs apart
_EVENTS = (dg.DagsterEventType.ASSET_MATERIALIZATION, dg.DagsterEventType.ASSET_OBSERVATION)
# rows that Dagster and MLflow leave when a run is deleted, by database
_LEFT_ROWS = {
    "runs.db": "DELETE FROM run_tags WHERE run_id NOT IN (SELECT run_id FROM runs);",
    "index.db": "DELETE FROM asset_check_executions WHERE run_id NOT IN (SELECT run_id FROM event_logs);",
    "mlflow.db": """
        DELETE FROM inputs WHERE destination_type = 'RUN' AND destination_id NOT IN (SELECT run_uuid FROM runs);
        DELETE FROM input_tags WHERE input_uuid NOT IN (SELECT input_uuid FROM inputs);
        DELETE FROM datasets WHERE dataset_uuid NOT IN (SELECT source_id FROM inputs);""",
}


class OldRuns(NamedTuple):
    """Ids of what can be deleted."""

    dagster: list[str]
    mlflow: list[str]


@contextmanager
def read_history(home: Home) -> Iterator[dg.DagsterInstance]:
    """The home's runs, whoever works in it and whether it can be written; sqlite files are read from a copy.

    Raises whatever a damaged database raises.
    """
    if storage_settings(home.dagster):
        with open_instance(home.dagster) as instance:
            yield instance
        return
    with tempfile.TemporaryDirectory() as folder:
        copy_database(home.dagster / DATABASES[0], Path(folder, "runs.db"))
        with dg.DagsterInstance(
            instance_type=InstanceType.EPHEMERAL,
            local_artifact_storage=LocalArtifactStorage(folder),
            run_storage=SqliteRunStorage.from_local(folder),
            event_storage=InMemoryEventLogStorage(),
            compute_log_manager=NoOpComputeLogManager(),
            run_coordinator=DefaultRunCoordinator(),
            run_launcher=SyncInMemoryRunLauncher(),
        ) as instance:
            yield instance


def find_old_runs(instance: dg.DagsterInstance, home: Home, keep: int) -> OldRuns:
    """Finished runs but for the newest `keep` of each profile, job and language, and their runs in the home's MLflow.

    Runs stay that hold the newest version of an output, or that a kept run was started from.
    """
    needed, mlflow = _needed(instance)
    runs, seen = instance.get_runs(), Counter[tuple[str, ...]]()  # newest first
    old = []
    for run in runs:
        if run.is_finished:
            group = (run.job_name, *(run.tags.get(tag, "") for tag in _PARTS))
            seen[group] += 1
            if seen[group] > keep and run.run_id not in needed:
                old.append(run)
    kept = {run.run_id for run in runs} - {run.run_id for run in old}
    starts = {one for run in runs if run.run_id in kept for one in (run.root_run_id, run.parent_run_id)}
    found = [run.run_id for run in old if run.run_id not in starts]
    return OldRuns(found, _mlflow_runs(home.mlflow_database, set(found), mlflow))


def _needed(instance: dg.DagsterInstance) -> tuple[set[str], set[str]]:
    """Ids of the runs that hold the newest event of an output, and of the MLflow runs that it names."""
    runs, mlflow, log = set[str](), set[str](), instance.event_log_storage
    for key in instance.all_asset_keys():
        whole = log.get_latest_materialization_events([key]).get(key)
        entries = [whole] if whole else []
        for kind in _EVENTS:
            ids = list(log.get_latest_storage_id_by_partition(key, kind).values())
            if ids:
                chosen = dg.EventRecordsFilter(kind, asset_key=key, storage_ids=ids)
                entries += [record.event_log_entry for record in log.get_event_records(chosen)]
        for entry in entries:
            runs.add(entry.run_id)
            link = entry.asset_materialization.metadata.get("mlflow_run_id") if entry.asset_materialization else None
            mlflow |= {str(link.value)} if link else set()
    return runs, mlflow


def _mlflow_runs(database: Path, dagster: set[str], needed: set[str]) -> list[str]:
    """MLflow's runs of these Dagster runs. A parent stays as long as a child does."""
    if not database.exists():
        return []
    with closing(sqlite3.connect(database)) as connection:
        ended = {run for (run,) in connection.execute("SELECT run_uuid FROM runs WHERE status != 'RUNNING'")}
        rows = connection.execute(
            "SELECT key, run_uuid, value FROM tags WHERE key IN ('dagster.run_id', 'mlflow.parentRunId')"
        )
        tags: dict[str, dict[str, str]] = {"dagster.run_id": {}, "mlflow.parentRunId": {}}
        for key, run, value in rows:
            tags[key][run] = value
    old = {run for run, owner in tags["dagster.run_id"].items() if owner in dagster and run in ended - needed}
    return sorted(old - {parent for run, parent in tags["mlflow.parentRunId"].items() if run not in old})


def delete_runs(home: Home, old: OldRuns) -> None:
    """Delete runs for good, MLflow's first, and make the databases smaller. Nobody else may work in the home."""
    if old.mlflow:
        client = open_store(sqlite_url(home.mlflow_database))
        store = client._tracking_client.store
        for run in old.mlflow:
            store._hard_delete_run(run)  # as `mlflow gc` does; the client itself only hides runs
        store.engine.dispose()
    with open_instance(home.dagster) as instance:
        for run in old.dagster:
            instance.delete_run(run)
    for database in databases(home):
        _compact(database)


def databases(home: Home) -> list[Path]:
    """The history's sqlite databases: the shared ones, and those of single runs that have a write-ahead log."""
    own = [] if storage_settings(home.dagster) else [home.dagster / name for name in DATABASES]
    logs = [Path(str(log).removesuffix(SQLITE[1])) for log in home.dagster.glob(f"history/runs/*{SQLITE[1]}")]
    return [path for path in dict.fromkeys([*own, home.mlflow_database, *logs]) if path.exists()]


@contextmanager
def copied_history(home: Home, without: OldRuns) -> Iterator[Home]:
    """A home with copies of the databases that `delete_runs` would change, to learn what it frees."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Home(Path(folder))
        copy.dagster.mkdir()  # without settings, which could name a storage that is no copy
        for database in databases(home):
            if database.stem not in without.dagster:
                copy_database(database, copy.root / database.relative_to(home.root))
        yield copy


def run_files(home: Home, old: OldRuns) -> dict[str, list[Path]]:
    """Files of old runs, and of runs that are in no database any more, by what they are."""
    with read_history(home) as instance:
        dagster = {run.run_id for run in instance.get_runs()} - set(old.dagster)
    mlflow = set[str]()
    if home.mlflow_database.exists():
        with closing(sqlite3.connect(home.mlflow_database)) as connection:
            mlflow = {run for (run,) in connection.execute("SELECT run_uuid FROM runs")} - set(old.mlflow)
    logs = home.dagster / "history" / "runs"
    events = [path for end in SQLITE for path in logs.glob(f"*.db{end}") if _is_id(path.name.partition(".")[0])]
    return {
        "event logs of runs": [path for path in events if path.name.partition(".")[0] not in dagster],
        "output of runs": [path for path in _folders(home.dagster / "storage") if path.name not in dagster],
        "MLflow artifacts": [path for path in _folders(home.mlflow_artifacts) if path.name not in mlflow],
    }


def _folders(folder: Path) -> list[Path]:
    """Those named after runs."""
    return sorted(path for path in folder.glob("*") if path.is_dir() and _is_id(path.name))


def _is_id(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{32}", name.replace("-", "")) is not None


def _compact(database: Path) -> None:
    """Give what deleted rows took back to the disk, and move the write-ahead log into the database."""
    with closing(sqlite3.connect(database, isolation_level=None, timeout=30)) as connection:
        if rows := _LEFT_ROWS.get(database.name):
            connection.executescript(rows)
            connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
