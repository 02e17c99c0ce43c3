"""The sqlite database of a home's ledger: its tables, how it is opened and checked, and its errors in words.

What the tables mean is in `ledger`.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from polar_pipeline.errors import EnvironmentProblem, InputError
from polar_pipeline.storage.files import is_full

FILE = "ledger.db"
_VERSION = 2
_BUSY_TIMEOUT = 60.0  # seconds to wait for another process's transaction
# Money is kept in whole picodollars (1e-12 US dollars), so that sums are exact.
_SCHEMA = f"""
CREATE TABLE calls (
    id INTEGER PRIMARY KEY AUTOINCREMENT, language TEXT NOT NULL, key TEXT NOT NULL, session TEXT NOT NULL,
    bound INTEGER NOT NULL, reserved INTEGER NOT NULL, cost INTEGER, outcome TEXT, free INTEGER NOT NULL DEFAULT 0,
    reply TEXT, digest TEXT, discarded INTEGER NOT NULL DEFAULT 0, batch TEXT, sent TEXT);
CREATE INDEX calls_by_key ON calls (language, key);
CREATE INDEX open_calls ON calls (language) WHERE cost IS NULL;
CREATE TABLE totals (requests INTEGER, settled INTEGER, open INTEGER, excess REAL, paused_until REAL);
INSERT INTO totals VALUES (0, 0, 0, 1.0, 0.0);
PRAGMA user_version = {_VERSION};
"""
_UPGRADES = {1: "ALTER TABLE calls ADD COLUMN sent TEXT"}  # from a version to the next one
_SUMS = """
SELECT count(*) - coalesce(sum(free), 0), coalesce(sum(cost), 0), coalesce(sum(iif(cost IS NULL, reserved, 0)), 0)
FROM calls
"""
# by the beginnings of sqlite's names of errors; any other error means that the file is no ledger (any more)
_REMEDIES = {
    ("SQLITE_BUSY",): "end the process that has locked it for a minute",
    ("SQLITE_FULL", "SQLITE_IOERR"): "free space there, or use a home on another disk (--home)",
    ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM"): "allow it, or use another home (--home)",
}


class LedgerDatabase:
    """The database in a folder. With `read_only`, an empty one in memory stands in for one that does not exist.

    Raises InputError, with the path and the remedy, for a database that cannot be read or written.
    """

    def __init__(self, folder: Path, read_only: bool) -> None:
        self.path = folder / FILE
        self._folder, self._read_only = folder, read_only

    def open(self) -> None:
        """Open it, and create it if need be. Raises EnvironmentProblem for one that cannot be used."""
        if old := sorted(self._folder.glob("*.jsonl")):
            raise InputError(
                f"{old[0]} is a ledger of an older version, which this one does not read: move it away to begin anew, "
                "which asks and pays for everything in it again."
            )
        if self._read_only and not self.path.exists():
            self._connection = sqlite3.connect(":memory:", isolation_level=None)
            self._connection.executescript(_SCHEMA)
            return
        self._connection = sqlite3.connect(
            self.path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        self._inode = self.path.stat().st_ino
        self._connection.execute("PRAGMA synchronous = NORMAL")  # with WAL, a killed process loses nothing
        if not self._read_only or self._version() == 0:
            self._create()
        self._check()

    def close(self) -> None:
        """Close it, with everything on the disk."""
        self._connection.close()

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """Run one statement, inside `transaction`."""
        return self._connection.execute(sql, values)

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """All rows of a query."""
        with self.explained():
            return self._connection.execute(sql, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of it or nothing, with no other process in between."""
        with self.explained():
            if not self.path.exists() or self.path.stat().st_ino != self._inode:
                raise EnvironmentProblem(f"{self.path} was moved away while it is in use: put it back, and run again.")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turn errors of sqlite and of the file system into one sentence with the path and the remedy."""
        try:
            yield
        except (sqlite3.ProgrammingError, sqlite3.InterfaceError, TimeoutError):
            raise
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            remedy = next((remedy for starts, remedy in _REMEDIES.items() if name.startswith(starts)), "")
            if not remedy:
                raise self.damaged(str(error)) from error
            raise EnvironmentProblem(
                f"{self.path} cannot be written ({error}): {remedy}; what was answered is kept."
            ) from error
        except OSError as error:
            remedy = "free space there" if is_full(error) else "allow it"
            raise EnvironmentProblem(
                f"{self._folder} cannot be written ({error.strerror}): {remedy}, or use another home (--home)."
            ) from error

    def damaged(self, what: str) -> EnvironmentProblem:
        """The error for a database that cannot be believed."""
        return EnvironmentProblem(
            f"{self.path} is damaged ({what}): restore a backup of it, or move it and its -wal and -shm files away to "
            "begin anew, which asks and pays for everything again."
        )

    def _create(self) -> None:
        """Make the tables, or bring those of an older version up to date."""
        if self._version() >= _VERSION:
            return
        with FileLock(self._folder / "ledger.lock"):  # sqlite does not wait for another process to switch to WAL
            if self._version() == 0:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            while (version := self._version()) < _VERSION:
                step = f"{_UPGRADES[version]}; PRAGMA user_version = {version + 1};"
                self._connection.executescript(f"BEGIN IMMEDIATE; {step} COMMIT;")

    def _check(self) -> None:
        if self._version() > _VERSION:
            raise EnvironmentProblem(
                f"{self.path} was written by a newer version of polar_pipeline: install that version."
            )
        if (sums := self.rows(_SUMS + "UNION ALL SELECT requests, settled, open FROM totals"))[0] != sums[1]:
            raise self.damaged(f"its calls sum to {sums[0]}, its totals to {sums[1]}")

    def _version(self) -> int:
        return int(self.rows("PRAGMA user_version")[0][0])
