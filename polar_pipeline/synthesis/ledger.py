"""The ledger: what was asked, what came back and what it cost, as append-only JSON lines, one file per language.

A request is reserved at its worst case before it is sent and settled when its reply is written, so that the sum of settled
and open never passes the cap, in whatever number of processes: they share one lock and read each other's files. A process that
was killed leaves reservations that nobody will settle. The endpoint may have charged for those, so they stay counted at
their worst case. Lines are written by one call each; a torn last line, which only a dying machine leaves, is cut off.

What does not belong here: sending anything.
"""

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from polar_pipeline.errors import InputError
from polar_pipeline.synthesis.request import Reply

_READABLE_TRIES = 2  # an answer that cannot be read is asked for once more


class Account(NamedTuple):
    """Sums over all languages of a folder."""

    requests: int  # reserved, whatever became of them
    settled: float  # dollars of replies
    open: float  # dollars reserved and not settled: in flight, or lost with a process that was killed


class Budget(NamedTuple):
    """The caps; None is none."""

    dollars: float | None
    requests: int | None


class _Tail:
    """One file, read as far as it goes and then only what is new."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self.requests, self.settled = 0, 0.0
        self.open: dict[str, float] = {}  # reservation -> dollars

    def read(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            self._take(_entry(line, self._path))

    def _take(self, entry: dict[str, Any]) -> None:
        if entry["kind"] == "reserve":
            self.requests += 1
            self.open[entry["reservation"]] = entry["dollars"]
        else:
            self.open.pop(entry["reservation"], None)
            self.settled += entry["dollars"]


class Ledger:
    """One language's file, and the account of all that lie beside it. Open once per language at a time."""

    def __init__(self, folder: Path, language: str, budget: Budget) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._budget = folder, budget
        self._path = folder / f"{language}.jsonl"
        self._lock = FileLock(folder / "account.lock")
        self._mine = FileLock(folder / f"{language}.lock")
        self._tails: dict[Path, _Tail] = {}
        self._count = 0
        self.replies: dict[str, Reply] = {}
        self._tries: dict[str, int] = {}

    def __enter__(self) -> "Ledger":
        """Take the file and read every reply in it. Raises InputError when another process has it."""
        try:
            self._mine.acquire(timeout=0)
        except TimeoutError:
            raise InputError(f"{self._path} is in use by another process: wait for it to end.") from None
        self._path.touch()
        self._cut_torn_line()
        for line in self._path.read_bytes().splitlines():
            entry = _entry(line, self._path)
            if entry["kind"] == "reply":
                self._keep(Reply.model_validate(entry["reply"]))
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        self._opened = f"{os.getpid()}-{time.time_ns()}"  # process numbers come again
        return self

    def __exit__(self, *_: object) -> None:
        """Give the file back, with everything on the disk."""
        os.fsync(self._file)
        os.close(self._file)
        self._mine.release()

    def reserve(self, key: str, dollars: float) -> str | None:
        """Set `dollars` aside for a request; None when that would pass a cap. Otherwise the reservation to settle."""
        with self._lock:
            now = self.account()
            if self._budget.requests is not None and now.requests + 1 > self._budget.requests:
                return None
            if self._budget.dollars is not None and now.settled + now.open + dollars > self._budget.dollars:
                return None
            self._count += 1
            reservation = f"{self._opened}-{self._count}-{key[:16]}"
            self._append({"kind": "reserve", "reservation": reservation, "key": key, "dollars": dollars})
        return reservation

    def settle(self, reservation: str, reply: Reply) -> None:
        """Write what came back, and its price in place of the reserved one."""
        content = reply.model_dump(mode="json")
        self._append({"kind": "reply", "reservation": reservation, "dollars": reply.dollars, "reply": content})
        self._keep(reply)

    def finished(self, key: str) -> bool:
        """Whether a request needs no further call: it was answered, refused, or came back unreadable or cut off twice."""
        reply = self.replies.get(key)
        return reply is not None and (reply.outcome in ("ok", "refused") or self._tries[key] >= _READABLE_TRIES)

    def release(self, reservation: str, reason: str, dollars: float = 0.0) -> None:
        """Write that a request ended without a reply: refused by the endpoint, or not known to have reached it."""
        self._append({"kind": "end", "reservation": reservation, "dollars": dollars, "reason": reason})

    def account(self) -> Account:
        """The sums as of now, over the files of all languages."""
        for path in self._folder.glob("*.jsonl"):
            self._tails.setdefault(path, _Tail(path))
        for tail in self._tails.values():
            tail.read()
        tails = self._tails.values()
        return Account(
            sum(tail.requests for tail in tails),
            sum(tail.settled for tail in tails),
            sum(sum(tail.open.values()) for tail in tails),
        )

    def _keep(self, reply: Reply) -> None:
        self.replies[reply.key] = reply
        self._tries[reply.key] = self._tries.get(reply.key, 0) + 1

    def _append(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n"
        if os.write(self._file, line) != len(line):
            raise OSError(f"{self._path}: the disk took only a part of a line")

    def _cut_torn_line(self) -> None:
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._path, whole)


def _entry(line: bytes, path: Path) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        raise InputError(
            f"{path} has a line that is not JSON ({line[:40]!r}): move the file away to begin anew."
        ) from None
    return entry
