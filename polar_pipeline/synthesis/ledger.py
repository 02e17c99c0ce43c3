"""The ledger: what was asked of endpoints, what came back and what it cost, in one sqlite database per home.

Each call is reserved at its worst case before it is sent, and settled when its reply is written, both in a transaction.
So the sum of settled and open money never passes the cap, however many processes share the ledger. A killed process
leaves open calls that nobody will settle; the endpoint may have charged for them, so they stay counted at their worst
case.
"""

import json
import sqlite3
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from polar_pipeline.errors import EnvironmentProblem, InputError
from polar_pipeline.storage.files import is_full
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.synthesis.formats import Reply

FILE = "ledger.db"
_VERSION = 1
_MAX_TRIES = 2  # an answer that cannot be read is asked for once more
_BUSY_TIMEOUT = 60.0  # seconds to wait for another process's transaction
# Money is kept in whole picodollars (1e-12 US dollars), so that sums are exact.
_SCHEMA = f"""
CREATE TABLE calls (
    id INTEGER PRIMARY KEY AUTOINCREMENT, language TEXT NOT NULL, key TEXT NOT NULL, session TEXT NOT NULL,
    bound INTEGER NOT NULL, reserved INTEGER NOT NULL, cost INTEGER, outcome TEXT, free INTEGER NOT NULL DEFAULT 0,
    reply TEXT, digest TEXT, discarded INTEGER NOT NULL DEFAULT 0, batch TEXT);
CREATE INDEX calls_by_key ON calls (language, key);
CREATE INDEX open_calls ON calls (language) WHERE cost IS NULL;
CREATE TABLE totals (requests INTEGER, settled INTEGER, open INTEGER, excess REAL, paused_until REAL);
INSERT INTO totals VALUES (0, 0, 0, 1.0, 0.0);
PRAGMA user_version = {_VERSION};
"""
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
_AMONG = "language = ? AND key IN (SELECT value FROM json_each(?))"


class Account(NamedTuple):
    """Sums over all languages of a home."""

    requests: int  # calls that were reserved, without those that were refused for free
    settled: float  # dollars of replies, and of calls that may have been charged
    open: float  # dollars reserved and not settled: in flight, or lost with a process that was killed


class Budget(NamedTuple):
    """The caps; None is none."""

    dollars: float | None = None
    requests: int | None = None


class CallSummary(NamedTuple):
    """All calls for some requests, including retries and charged time-outs: how many ended how, and their cost."""

    ended: Counter[str]
    dollars: float
    reserved: float  # dollars of those whose end nobody saw

    def plus(self, other: "CallSummary") -> "CallSummary":
        """Both together."""
        return CallSummary(self.ended + other.ended, self.dollars + other.dollars, self.reserved + other.reserved)


NO_CALLS = CallSummary(Counter(), 0.0, 0.0)


class Ledger:
    """One language's calls, and the account of all languages. Use it as a context manager.

    Only one process at a time may write for a language: a lock that the system drops when the process dies ensures it.
    With `read_only` it takes no lock, and an empty ledger stands in for one that does not exist.
    Raises InputError, with the path and the remedy, for a database that cannot be read or written.
    """

    def __init__(self, folder: Path, language: str, budget: Budget | None = None, read_only: bool = False) -> None:
        self._folder, self._path = folder, folder / FILE
        self._language, self._budget, self._read_only = language, budget or Budget(), read_only
        self._language_lock = FileLock(folder / f"{language}.lock")
        self._session = uuid.uuid4().hex

    def __enter__(self) -> "Ledger":
        """Open the database.

        Raises EnvironmentProblem when another process writes for this language, or the database cannot be used.
        """
        try:
            with self._explained():
                if not self._read_only:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    self._language_lock.acquire(timeout=0)
                self._open()
        except TimeoutError:
            raise EnvironmentProblem(
                f"the ledger of {self._language} in {self._folder} is in use by another process: wait for it to end."
            ) from None
        except BaseException:
            self._language_lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Close it, with everything on the disk."""
        self._db.close()
        self._language_lock.release()

    @property
    def folder(self) -> Path:
        """Where the database is."""
        return self._folder

    def reserve(self, key: str, dollars: float) -> int | None:
        """Set `dollars` aside for a request, and return the id of the call; None when that would pass a cap.

        If replies cost more than their reservations, later reservations grow by the same factor.
        """
        with self._transaction():
            return self._reserve(key, dollars)

    def reserve_batch(self, wanted: dict[str, float]) -> tuple[str, dict[str, int]]:
        """Reserve as many requests (key -> dollars) as the caps allow, at once, before they are sent as a batch.

        Returns the batch's globally unique name, and the call of each key.
        """
        name, calls = uuid.uuid4().hex, dict[str, int]()
        with self._transaction():
            for key, dollars in wanted.items():
                call = self._reserve(key, dollars, name)
                if call is None:
                    break
                calls[key] = call
        return name, calls

    def settle(self, call: int, reply: Reply) -> bool:
        """Write a reply, and its price in place of the reserved one. Returns whether the reservation was enough."""
        return self._end(call, reply.outcome, reply.dollars, reply=reply.model_dump_json())

    def read_again(self, keys: Collection[str], read: Callable[[Reply], Reply]) -> int:
        """Replace the replies to these requests that `read` makes something else of; what they cost stays. How many."""
        select = f"SELECT id, reply FROM calls WHERE {_AMONG} AND reply IS NOT NULL AND outcome <> 'ok'"
        changed = 0
        with self._transaction():
            for call, text in self._db.execute(select, self._among(keys)).fetchall():
                reply = read(Reply.model_validate_json(text))
                new = reply.model_dump_json()
                if reply.outcome == "ok":
                    update = "UPDATE calls SET outcome = ?, reply = ?, digest = ?, discarded = 0 WHERE id = ?"
                    self._db.execute(update, (reply.outcome, new, fingerprint(new), call))
                    changed += 1
        return changed

    def release(self, call: int, outcome: str, dollars: float | None = 0.0, free: bool = False) -> None:
        """Write that a call ended without a reply; `dollars` None charges all that was reserved.

        `free`: it was refused before any work, and does not even count as a request.
        """
        self._end(call, outcome, dollars, free=free)

    def discard(self, keys: Collection[str]) -> None:
        """Allow that these requests are asked again; what they cost stays spent."""
        with self._transaction():
            self._db.execute(f"UPDATE calls SET discarded = 1 WHERE {_AMONG}", self._among(keys))

    def replies(self, keys: Collection[str]) -> dict[str, Reply]:
        """The last reply to each of these requests that has one."""
        found: dict[str, Reply] = {}
        select = f"SELECT id, key, reply, digest FROM calls WHERE {_AMONG} AND reply IS NOT NULL AND NOT discarded"
        for call, key, reply, digest in self._rows(f"{select} ORDER BY id", *self._among(keys)):
            if fingerprint(reply) != digest:
                raise self._damaged(f"the reply of call {call} was changed")
            found[key] = Reply.model_validate_json(reply)
        return found

    def outcomes(self, keys: Collection[str] | None = None) -> dict[str, str]:
        """The last outcome of each request that needs no further call; of all requests without `keys`.

        That is one that was answered or refused, or came back unreadable or cut off twice.
        """
        among = "language = ?" if keys is None else _AMONG
        rows = self._rows(
            # with max(), sqlite takes `outcome` from the row of the maximum
            f"SELECT key, outcome, count(*), max(id) FROM calls WHERE {among} AND reply IS NOT NULL AND NOT discarded "
            "GROUP BY key ORDER BY max(id)",
            *((self._language,) if keys is None else self._among(keys)),
        )
        return {key: last for key, last, tries, _ in rows if last in ("ok", "refused") or tries >= _MAX_TRIES}

    def finished(self, key: str) -> bool:
        """Whether a request needs no further call."""
        return bool(self.outcomes([key]))

    def open_batches(self) -> dict[str, dict[str, int]]:
        """Batches whose end nobody saw, by name: the open call of each key."""
        found: dict[str, dict[str, int]] = {}
        select = "SELECT batch, id, key FROM calls WHERE language = ? AND cost IS NULL AND batch IS NOT NULL"
        for name, call, key in self._rows(f"{select} ORDER BY id", self._language):
            found.setdefault(name, {})[key] = call
        return found

    def calls(self, keys: Collection[str]) -> CallSummary:
        """All calls for these requests."""
        rows = self._rows(
            f"SELECT coalesce(outcome, 'no end seen'), count(*), coalesce(sum(cost), 0), "
            f"sum(iif(cost IS NULL, reserved, 0)) FROM calls WHERE {_AMONG} GROUP BY outcome",
            *self._among(keys),
        )
        cost, reserved = sum(row[2] for row in rows), sum(row[3] for row in rows)
        return CallSummary(Counter({row[0]: row[1] for row in rows}), _dollars(cost), _dollars(reserved))

    def account(self) -> Account:
        """The sums over all languages as of now."""
        requests, settled, open_, _ = self._totals()
        return Account(requests, _dollars(settled), _dollars(open_))

    def reached_cap(self, dollars: float, if_all_free: bool = False) -> str:
        """The cap that leaves no room for a request of at most so many dollars; "" where there is room.

        `if_all_free`: even if no call that may be in flight cost anything. Those are open calls of this session and of
        other languages; open calls of earlier sessions of this language are lost for certain.
        """
        requests, settled, open_, excess = self._totals()
        if if_all_free:
            alive = "cost IS NULL AND NOT (language = ? AND session <> ?)"
            select = f"SELECT count(*), coalesce(sum(reserved), 0) FROM calls WHERE {alive}"
            ((count, reserved),) = self._rows(select, self._language, self._session)
            requests, open_ = requests - count, open_ - reserved
        if self._budget.requests is not None and requests + 1 > self._budget.requests:
            return f"synthesis.max_requests ({self._budget.requests})"
        spent = settled + open_ + _pico(dollars * excess)
        if self._budget.dollars is not None and spent > _pico(self._budget.dollars):
            return f"synthesis.max_dollars (${self._budget.dollars:.4f})"
        return ""

    def paused_until(self) -> float:
        """The moment before which no process may send anything (seconds since the epoch)."""
        return float(self._rows("SELECT paused_until FROM totals")[0][0])

    def pause_until(self, moment: float) -> None:
        """Let all processes of the home wait until then."""
        with self._transaction():
            self._db.execute("UPDATE totals SET paused_until = max(paused_until, ?)", (moment,))

    def _reserve(self, key: str, dollars: float, batch: str | None = None) -> int | None:
        if self.reached_cap(dollars):
            return None
        reserved = _pico(dollars * self._totals()[-1])
        cursor = self._db.execute(
            "INSERT INTO calls (language, key, session, bound, reserved, batch) VALUES (?, ?, ?, ?, ?, ?)",
            (self._language, key, self._session, _pico(dollars), reserved, batch),
        )
        self._db.execute("UPDATE totals SET requests = requests + 1, open = open + ?", (reserved,))
        return cursor.lastrowid

    def _end(
        self, call: int, outcome: str, dollars: float | None, free: bool = False, reply: str | None = None
    ) -> bool:
        with self._transaction():
            select = "SELECT bound, reserved FROM calls WHERE id = ? AND cost IS NULL"
            row = self._db.execute(select, (call,)).fetchone()
            if row is None:
                raise ValueError(f"call {call} of {self._path} is not open")
            bound, reserved = row
            cost = reserved if dollars is None else _pico(dollars)
            self._db.execute(
                "UPDATE calls SET cost = ?, outcome = ?, free = ?, reply = ?, digest = ? WHERE id = ?",
                (cost, outcome, free, reply, reply and fingerprint(reply), call),
            )
            self._db.execute(
                "UPDATE totals SET requests = requests - ?, settled = settled + ?, open = open - ?, "
                "excess = max(excess, ?)",
                (free, cost, reserved, cost / bound if bound else 1.0),
            )
        return bool(cost <= reserved)

    def _totals(self) -> tuple[int, int, int, float]:
        """Requests, settled and open picodollars, and what a reply cost for each dollar that it should cost at most."""
        row: tuple[int, int, int, float] = self._rows("SELECT requests, settled, open, excess FROM totals")[0]
        return row

    def _among(self, keys: Collection[str]) -> tuple[str, str]:
        return self._language, json.dumps(list(keys))

    def _rows(self, sql: str, *values: Any) -> list[Any]:
        with self._explained():
            return self._db.execute(sql, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it or nothing, with no other process in between."""
        with self._explained():
            if not self._path.exists() or self._path.stat().st_ino != self._inode:
                raise EnvironmentProblem(f"{self._path} was moved away while it is in use: put it back, and run again.")
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _open(self) -> None:
        if old := sorted(self._folder.glob("*.jsonl")):
            raise InputError(
                f"{old[0]} is a ledger of an older version, which this one does not read: move it away to begin anew, "
                "which asks and pays for everything in it again."
            )
        if self._read_only and not self._path.exists():
            self._db = sqlite3.connect(":memory:", isolation_level=None)
            self._db.executescript(_SCHEMA)
            return
        self._db = sqlite3.connect(self._path, timeout=_BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        self._inode = self._path.stat().st_ino
        self._db.execute("PRAGMA synchronous = NORMAL")  # with WAL, a killed process loses nothing
        if self._version() == 0:
            with FileLock(self._folder / "ledger.lock"):  # sqlite does not wait for another process to switch to WAL
                if self._version() == 0:
                    self._db.execute("PRAGMA journal_mode = WAL")
                    self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
        if self._version() != _VERSION:
            raise EnvironmentProblem(
                f"{self._path} was written by a newer version of polar_pipeline: install that version."
            )
        if (sums := self._rows(_SUMS + "UNION ALL SELECT requests, settled, open FROM totals"))[0] != sums[1]:
            raise self._damaged(f"its calls sum to {sums[0]}, its totals to {sums[1]}")

    def _version(self) -> int:
        return int(self._rows("PRAGMA user_version")[0][0])

    def _damaged(self, what: str) -> EnvironmentProblem:
        return EnvironmentProblem(
            f"{self._path} is damaged ({what}): restore a backup of it, or move it and its -wal and -shm files away to "
            "begin anew, which asks and pays for everything again."
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn errors of sqlite and of the file system into one sentence with the path and the remedy."""
        try:
            yield
        except (sqlite3.ProgrammingError, sqlite3.InterfaceError, TimeoutError):
            raise
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            remedy = next((remedy for starts, remedy in _REMEDIES.items() if name.startswith(starts)), "")
            if not remedy:
                raise self._damaged(str(error)) from error
            raise EnvironmentProblem(
                f"{self._path} cannot be written ({error}): {remedy}; what was answered is kept."
            ) from error
        except OSError as error:
            remedy = "free space there" if is_full(error) else "allow it"
            raise EnvironmentProblem(
                f"{self._folder} cannot be written ({error.strerror}): {remedy}, or use another home (--home)."
            ) from error


def read_account(folder: Path) -> Account:
    """The sums as of now, also while others write; takes no lock."""
    with Ledger(folder, "", read_only=True) as ledger:
        return ledger.account()


def _pico(dollars: float) -> int:
    return round(dollars * 1e12)


def _dollars(pico: int) -> float:
    return pico / 1e12
