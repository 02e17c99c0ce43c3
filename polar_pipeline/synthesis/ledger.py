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
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from polar_pipeline.errors import InputError
from polar_pipeline.synthesis.answers import Answers, entry, read_answers
from polar_pipeline.synthesis.request import Reply


class Account(NamedTuple):
    """Sums over all languages of a folder."""

    requests: int  # reserved, but for those that were refused for free
    settled: float  # dollars of replies, and of calls that may have been charged
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
        self._bounds: dict[str, float] = {}  # reservation -> dollars that were thought to be the most
        self.excess = 1.0  # what a reply cost for each dollar that it should cost at the most

    def read(self) -> None:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except FileNotFoundError:
            raise InputError(f"{self._path} was moved away while it is in use: put it back, and run again.") from None
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            self._take(entry(line, self._path))

    def _take(self, line: dict[str, Any]) -> None:
        if line["kind"] == "reserve":
            self.requests += 1
            self.open[line["reservation"]] = line["dollars"]
            self._bounds[line["reservation"]] = line.get("bound", line["dollars"])
            return
        if line["kind"] in ("submit", "again"):  # no money
            return
        self.open.pop(line["reservation"], None)
        bound = self._bounds.pop(line["reservation"], 0.0)
        self.settled += line["dollars"]
        self.requests -= bool(line.get("free"))
        if bound > 0:
            self.excess = max(self.excess, line["dollars"] / bound)


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
        self._held: dict[str, float] = {}  # this process's open reservations
        self.answers = Answers()

    def __enter__(self) -> "Ledger":
        """Take the file and read every reply in it. Raises InputError when another process has it."""
        try:
            self._mine.acquire(timeout=0)
        except TimeoutError:
            raise InputError(f"{self._path} is in use by another process: wait for it to end.") from None
        try:
            self._path.touch()
            self._cut_torn_line()
            self.answers = read_answers(self._path)
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        except BaseException:
            self._mine.release()
            raise
        self._opened = f"{os.getpid()}-{time.time_ns()}"  # process numbers come again
        return self

    def __exit__(self, *_: object) -> None:
        """Give the file back, with everything on the disk."""
        os.fsync(self._file)
        os.close(self._file)
        self._mine.release()

    def reserve(self, key: str, dollars: float) -> str | None:
        """Set `dollars` aside for a request; None when that would pass a cap. Otherwise the reservation to settle.

        Where replies cost more than was set aside for them, as much more is set aside for those that follow.
        """
        with self._lock:
            now = self.account()
            aside = dollars * self._excess()
            if self._full(now.requests, now.settled + now.open, aside):
                return None
            self._count += 1
            reservation = f"{self._opened}-{self._count}-{key[:16]}"
            what = {"key": key, "dollars": aside, "bound": dollars}
            self._append({"kind": "reserve", "reservation": reservation, **what})
            self._held[reservation] = aside
        return reservation

    def submit(self, reservations: list[str]) -> str:
        """Write, before it is sent, that these requests go out as one batch. Returns the batch's name, which no other has."""
        name = reservations[0]
        self._append({"kind": "submit", "name": name, "reservations": reservations})
        return name

    def settle(self, reservation: str, reply: Reply) -> bool:
        """Write what came back, and its price in place of the reserved one. Returns whether that was enough."""
        content, held = reply.model_dump(mode="json"), self.held(reservation)
        self._append({"kind": "reply", "reservation": reservation, "dollars": reply.dollars, "reply": content})
        self._held.pop(reservation, None)
        return reply.dollars <= held + 1e-12

    def release(self, reservation: str, reason: str, dollars: float = 0.0, free: bool = False) -> None:
        """Write that a request ended without a reply. `free`: refused unseen, which counts not even as a request."""
        self._append({"kind": "end", "reservation": reservation, "dollars": dollars, "reason": reason, "free": free})
        self._held.pop(reservation, None)

    def again(self, key: str) -> None:
        """Write that what was answered uselessly may be asked once more; what it cost stays spent."""
        self._append({"kind": "again", "key": key})

    def held(self, reservation: str) -> float:
        """Dollars that are set aside under this reservation."""
        if reservation not in self._held:  # an earlier process set it aside
            self.account()
            return self._tails[self._path].open[reservation]
        return self._held[reservation]

    def finished(self, key: str) -> bool:
        """Whether a request needs no further call."""
        return self.answers.finished(key)

    @property
    def replies(self) -> dict[str, Reply]:
        """The last reply to each request."""
        return self.answers.replies

    def account(self) -> Account:
        """The sums as of now, over the files of all languages."""
        for path in self._folder.glob("*.jsonl"):
            self._tails.setdefault(path, _Tail(path))
        for tail in self._tails.values():
            tail.read()
        return _sum(self._tails.values())

    def hopeless(self, dollars: float) -> str:
        """The cap that leaves no room for a request even if nothing in flight cost anything; "" while there is hope.

        What another process holds may be in flight; what this language's file holds from before is lost for certain.
        """
        now = self.account()
        alive = [*self._held.values()]
        alive += [held for path, tail in self._tails.items() if path != self._path for held in tail.open.values()]
        return self._full(now.requests - len(alive), now.settled + now.open - sum(alive), dollars * self._excess())

    def full(self, dollars: float) -> str:
        """The cap that leaves no room for a request as long as everything open counts; "" where there is room."""
        now = self.account()
        return self._full(now.requests, now.settled + now.open, dollars * self._excess())

    def _full(self, requests: int, spent: float, dollars: float) -> str:
        if self._budget.requests is not None and requests + 1 > self._budget.requests:
            return f"synthesis.max_requests ({self._budget.requests})"
        if self._budget.dollars is not None and spent + dollars > self._budget.dollars:
            return f"synthesis.max_dollars (${self._budget.dollars:.4f})"
        return ""

    def _excess(self) -> float:
        return max((tail.excess for tail in self._tails.values()), default=1.0)

    def _append(self, line: dict[str, Any]) -> None:
        # half a character, which UTF-8 cannot hold, stays the JSON escape that it came as
        text = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
        content = text.encode("utf-8", "backslashreplace") + b"\n"
        if os.write(self._file, content) != len(content):
            raise OSError(f"{self._path}: the disk took only a part of a line")
        self.answers.take(line)

    def _cut_torn_line(self) -> None:
        content = self._path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(self._path, whole)


def read_account(folder: Path) -> Account:
    """The sums as of now, also while others write; takes no lock."""
    tails = [_Tail(path) for path in folder.glob("*.jsonl")]
    for tail in tails:
        tail.read()
    return _sum(tails)


def _sum(tails: Iterable[_Tail]) -> Account:
    tails = list(tails)
    return Account(
        sum(tail.requests for tail in tails),
        sum(tail.settled for tail in tails),
        sum(sum(tail.open.values()) for tail in tails),
    )
