"""The ledger: what was asked of endpoints, what came back and what it cost, in one sqlite database per home.

Each call is reserved at its worst case before it is sent, and settled when its reply is written, both in a transaction.
So the sum of settled and open money never passes the cap, however many processes share the ledger. A killed process
leaves open calls that nobody will settle; the endpoint may have charged for them, so they stay counted at their worst
case.
"""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from polar_pipeline.endpoint.database import LedgerDatabase
from polar_pipeline.endpoint.formats import Reply
from polar_pipeline.errors import EnvironmentProblem
from polar_pipeline.storage.fingerprint import fingerprint

_MAX_TRIES = 2  # an answer that cannot be read is asked for once more
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


class BatchCall(NamedTuple):
    """A call of a batch."""

    id: int
    sent: str  # as `reserve_batch` was given it; "" in batches of older versions


NO_CALLS = CallSummary(Counter(), 0.0, 0.0)


class Ledger:
    """One language's calls, and the account of all languages. Use it as a context manager.

    Only one process at a time may write for a language: a lock that the system drops when the process dies ensures it.
    With `read_only` it takes no lock, and an empty ledger stands in for one that does not exist.
    Raises InputError, with the path and the remedy, for a database that cannot be read or written.
    """

    def __init__(self, folder: Path, language: str, budget: Budget | None = None, read_only: bool = False) -> None:
        self._folder, self._database = folder, LedgerDatabase(folder, read_only)
        self._language, self._budget, self._read_only = language, budget or Budget(), read_only
        self._language_lock = FileLock(folder / f"{language}.lock")
        self._session = uuid.uuid4().hex

    def __enter__(self) -> "Ledger":
        """Open the database.

        Raises EnvironmentProblem when another process writes for this language, or the database cannot be used.
        """
        try:
            with self._database.explained():
                if not self._read_only:
                    self._folder.mkdir(parents=True, exist_ok=True)
                    self._language_lock.acquire(timeout=0)
                self._database.open()
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
        self._database.close()
        self._language_lock.release()

    @property
    def folder(self) -> Path:
        """Where the database is."""
        return self._folder

    def reserve(self, key: str, dollars: float) -> int | None:
        """Set `dollars` aside for a request, and return the id of the call; None when that would pass a cap.

        If replies cost more than their reservations, later reservations grow by the same factor.
        """
        with self._database.transaction():
            return self._reserve(key, dollars)

    def reserve_batch(self, wanted: dict[str, tuple[float, str]]) -> tuple[str, dict[str, BatchCall]]:
        """Reserve as many requests as the caps allow, at once, before they are sent as a batch.

        `wanted` has dollars and a text by key; the text is kept until the call ends. Returns the batch's globally
        unique name, and the call of each key.
        """
        name, calls = uuid.uuid4().hex, dict[str, BatchCall]()
        with self._database.transaction():
            for key, (dollars, sent) in wanted.items():
                call = self._reserve(key, dollars, name, sent)
                if call is None:
                    break
                calls[key] = BatchCall(call, sent)
        return name, calls

    def settle(self, call: int, reply: Reply) -> bool:
        """Write a reply, and its price in place of the reserved one. Returns whether the reservation was enough."""
        return self._end(call, reply.outcome, reply.dollars, reply=reply.model_dump_json())

    def read_again(self, keys: Collection[str], read: Callable[[Reply], Reply]) -> int:
        """Replace the replies to these requests that `read` makes something else of; what they cost stays. How many."""
        select = f"SELECT id, key, reply, digest FROM calls WHERE {_AMONG} AND reply IS NOT NULL AND outcome <> 'ok'"
        found = list[tuple[int, str, str]]()
        for call, key, text, digest in list(self._database.rows(select, *self._among(keys))):
            if fingerprint(text) != digest:
                raise self._database.damaged(f"the reply of call {call} was changed")
            reply = read(Reply.model_validate_json(text))  # outside the transaction: it may take long
            if reply.outcome == "ok":
                found.append((call, key, reply.model_dump_json()))
        with self._database.transaction():
            for call, key, new in found:
                update = "UPDATE calls SET outcome = 'ok', reply = ?, digest = ?, discarded = 0 WHERE id = ?"
                self._database.execute(update, new, fingerprint(new), call)
                # the other tries of this request no longer speak for it
                others = "UPDATE calls SET discarded = 1 WHERE language = ? AND key = ? AND id <> ?"
                self._database.execute(others, self._language, key, call)
        return len(found)

    def release(self, call: int, outcome: str, dollars: float | None = 0.0, free: bool = False) -> None:
        """Write that a call ended without a reply; `dollars` None charges all that was reserved.

        `free`: it was refused before any work, and does not even count as a request.
        """
        self._end(call, outcome, dollars, free=free)

    def discard(self, keys: Collection[str]) -> None:
        """Allow that these requests are asked again; what they cost stays spent."""
        with self._database.transaction():
            self._database.execute(f"UPDATE calls SET discarded = 1 WHERE {_AMONG}", *self._among(keys))

    def replies(self, keys: Collection[str]) -> dict[str, Reply]:
        """The last reply to each of these requests that has one."""
        found: dict[str, Reply] = {}
        select = f"SELECT id, key, reply, digest FROM calls WHERE {_AMONG} AND reply IS NOT NULL AND NOT discarded"
        for call, key, reply, digest in self._database.rows(f"{select} ORDER BY id", *self._among(keys)):
            if fingerprint(reply) != digest:
                raise self._database.damaged(f"the reply of call {call} was changed")
            found[key] = Reply.model_validate_json(reply)
        return found

    def outcomes(self, keys: Collection[str] | None = None) -> dict[str, str]:
        """The last outcome of each request that needs no further call; of all requests without `keys`.

        That is one that was answered or refused, or came back unreadable or cut off twice.
        """
        among = "language = ?" if keys is None else _AMONG
        rows = self._database.rows(
            # with max(), sqlite takes `outcome` from the row of the maximum
            f"SELECT key, outcome, count(*), max(id) FROM calls WHERE {among} AND reply IS NOT NULL AND NOT discarded "
            "GROUP BY key ORDER BY max(id)",
            *((self._language,) if keys is None else self._among(keys)),
        )
        return {key: last for key, last, tries, _ in rows if last in ("ok", "refused") or tries >= _MAX_TRIES}

    def finished(self, key: str) -> bool:
        """Whether a request needs no further call."""
        return bool(self.outcomes([key]))

    def called(self) -> set[str]:
        """The keys of all requests that there were calls for, refused ones too."""
        return {
            key for (key,) in self._database.rows("SELECT DISTINCT key FROM calls WHERE language = ?", self._language)
        }

    def open_batches(self, keys: Collection[str]) -> dict[str, dict[str, BatchCall]]:
        """Batches whose end nobody saw and which had any of these requests: by name, the open call of each key."""
        found: dict[str, dict[str, BatchCall]] = {}
        select = "SELECT batch, id, key, coalesce(sent, '') FROM calls WHERE language = ? AND cost IS NULL"
        those = f"batch IN (SELECT batch FROM calls WHERE {_AMONG})"
        rows = self._database.rows(f"{select} AND {those} ORDER BY id", self._language, *self._among(keys))
        for name, call, key, sent in rows:
            found.setdefault(name, {})[key] = BatchCall(call, sent)
        return found

    def give_up_batches(self) -> int:
        """Charge all that was reserved for the open calls of batches, and return how many those were."""
        select = "SELECT id FROM calls WHERE language = ? AND cost IS NULL AND batch IS NOT NULL"
        calls = self._database.rows(select, self._language)
        for (call,) in calls:
            self.release(call, "batch given up", None)
        return len(calls)

    def calls(self, keys: Collection[str]) -> CallSummary:
        """All calls for these requests."""
        rows = self._database.rows(
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
            ((count, reserved),) = self._database.rows(select, self._language, self._session)
            requests, open_ = requests - count, open_ - reserved
        if self._budget.requests is not None and requests + 1 > self._budget.requests:
            return f"synthesis.max_requests ({self._budget.requests})"
        spent = settled + open_ + _pico(dollars * excess)
        if self._budget.dollars is not None and spent > _pico(self._budget.dollars):
            return f"synthesis.max_dollars (${self._budget.dollars:.4f})"
        return ""

    def paused_until(self) -> float:
        """The moment before which no process may send anything (seconds since the epoch)."""
        return float(self._database.rows("SELECT paused_until FROM totals")[0][0])

    def pause_until(self, moment: float) -> None:
        """Let all processes of the home wait until then."""
        with self._database.transaction():
            self._database.execute("UPDATE totals SET paused_until = max(paused_until, ?)", moment)

    def _reserve(self, key: str, dollars: float, batch: str | None = None, sent: str | None = None) -> int | None:
        if self.reached_cap(dollars):
            return None
        reserved = _pico(dollars * self._totals()[-1])
        cursor = self._database.execute(
            "INSERT INTO calls (language, key, session, bound, reserved, batch, sent) VALUES (?, ?, ?, ?, ?, ?, ?)",
            *(self._language, key, self._session, _pico(dollars), reserved, batch, sent),
        )
        self._database.execute("UPDATE totals SET requests = requests + 1, open = open + ?", reserved)
        return cursor.lastrowid

    def _end(
        self, call: int, outcome: str, dollars: float | None, free: bool = False, reply: str | None = None
    ) -> bool:
        with self._database.transaction():
            select = "SELECT bound, reserved FROM calls WHERE id = ? AND cost IS NULL"
            row = self._database.execute(select, call).fetchone()
            if row is None:
                raise ValueError(f"call {call} of {self._database.path} is not open")
            bound, reserved = row
            cost = reserved if dollars is None else _pico(dollars)
            self._database.execute(
                "UPDATE calls SET cost = ?, outcome = ?, free = ?, reply = ?, digest = ?, sent = NULL WHERE id = ?",
                *(cost, outcome, free, reply, reply and fingerprint(reply), call),
            )
            self._database.execute(
                "UPDATE totals SET requests = requests - ?, settled = settled + ?, open = open - ?, "
                "excess = max(excess, ?)",
                *(free, cost, reserved, cost / bound if bound else 1.0),
            )
        return bool(cost <= reserved)

    def _totals(self) -> tuple[int, int, int, float]:
        """Requests, settled and open picodollars, and what a reply cost for each dollar that it should cost at most."""
        row: tuple[int, int, int, float] = self._database.rows("SELECT requests, settled, open, excess FROM totals")[0]
        return row

    def _among(self, keys: Collection[str]) -> tuple[str, str]:
        return self._language, json.dumps(list(keys))


def read_account(folder: Path) -> Account:
    """The sums as of now, also while others write; takes no lock."""
    with Ledger(folder, "", read_only=True) as ledger:
        return ledger.account()


def _pico(dollars: float) -> int:
    return round(dollars * 1e12)


def _dollars(pico: int) -> float:
    return pico / 1e12
