"""Dagster's sqlite event log, with one connection for each database instead of an engine for each statement.

A language's run stores 350 times: a new engine compiles every statement anew, and each commit and each closing of a
last connection waits for the disk. The files are the same as those of the class below this one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy import Connection, Engine, create_engine, event

_MOST_ENGINES = 8  # one per run that is looked at, and the index; the one that was made first is dropped


class EventLog(SqliteEventLogStorage):
    """One database per run and an index, below `base_dir`."""

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
        for end in ("", "-wal", "-shm"):
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
