"""Answers: what the lines of one language's ledger say was asked, what came back and what it cost. Reads, and never writes."""

import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from polar_pipeline.errors import InputError
from polar_pipeline.synthesis.request import Reply

USELESS = ("refused", "malformed", "truncated")  # answers that are paid for and bring no posts
# what a line of each kind has to hold
_NEEDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "reserve": {"reservation": str, "key": str, "dollars": (int, float)},
    "submit": {"name": str, "reservations": list},
    "reply": {"reservation": str, "dollars": (int, float), "reply": dict},
    "end": {"reservation": str, "dollars": (int, float), "reason": str},
    "again": {"key": str},
}
_READABLE_TRIES = 2  # an answer that cannot be read is asked for once more


class Calls(NamedTuple):
    """All calls for some requests, first tries and charged time-outs too: how many ended how, and what they cost."""

    ended: Counter[str]
    dollars: float
    reserved: float  # of those that nobody saw the end of, at their worst case

    def plus(self, other: "Calls") -> "Calls":
        """Both together."""
        return Calls(self.ended + other.ended, self.dollars + other.dollars, self.reserved + other.reserved)


NO_CALLS = Calls(Counter(), 0.0, 0.0)


class Answers:
    """The last reply to each request, and every call that was made for it."""

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self._tries: Counter[str] = Counter()
        self._asked: dict[str, tuple[str, float]] = {}  # open reservation -> key and dollars
        self._ended: list[tuple[str, str, float]] = []  # key, how it ended, dollars
        self._submitted: dict[str, list[str]] = {}  # batch's name -> its reservations

    def take(self, entry: dict[str, Any]) -> None:
        """Note one line."""
        if entry["kind"] == "reserve":
            self._asked[entry["reservation"]] = (entry["key"], entry["dollars"])
            return
        if entry["kind"] == "again":
            self._tries.pop(entry["key"], None)
            self.replies.pop(entry["key"], None)
            return
        if entry["kind"] == "submit":
            self._submitted[entry["name"]] = entry["reservations"]
            return
        key, _ = self._asked.pop(entry["reservation"], ("", 0.0))
        if entry["kind"] == "reply":
            reply = Reply.model_validate(entry["reply"])
            self.replies[reply.key] = reply
            self._tries[reply.key] += 1
            self._ended.append((reply.key, reply.outcome, entry["dollars"]))
        else:
            self._ended.append((key, entry["reason"], entry["dollars"]))

    def finished(self, key: str) -> bool:
        """Whether a request needs no further call: it was answered, refused, or came back unreadable or cut off twice."""
        reply = self.replies.get(key)
        return reply is not None and (reply.outcome in ("ok", "refused") or self._tries[key] >= _READABLE_TRIES)

    def useless_keys(self) -> list[str]:
        """All requests of which that is so, in the order of their last answers."""
        return [key for key in self.replies if self.useless(key)]

    def useless(self, key: str) -> bool:
        """Whether a request needs no further call and yet brought nothing."""
        return self.finished(key) and self.replies[key].outcome in USELESS

    def key(self, reservation: str) -> str:
        """The request that an open reservation is for."""
        return self._asked[reservation][0]

    def submitted(self) -> dict[str, dict[str, str]]:
        """Batches that nobody saw the end of, by name: their open reservations, and the key of each."""
        found = {
            name: {reservation: self._asked[reservation][0] for reservation in held if reservation in self._asked}
            for name, held in self._submitted.items()
        }
        return {name: keys for name, keys in found.items() if keys}

    def calls(self, keys: Collection[str]) -> Calls:
        """All calls for these requests."""
        wanted = set(keys)
        mine = [(outcome, dollars) for key, outcome, dollars in self._ended if key in wanted]
        lost = [dollars for key, dollars in self._asked.values() if key in wanted]
        ended = Counter(outcome for outcome, _ in mine)
        if lost:
            ended["no end seen"] = len(lost)
        return Calls(ended, sum(dollars for _, dollars in mine), sum(lost))


def read_answers(path: Path) -> Answers:
    """The answers in a file as of now, also while another process writes it; none where there is no file."""
    answers = Answers()
    content = path.read_bytes() if path.exists() else b""
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        answers.take(entry(line, path))
    return answers


def entry(line: bytes, path: Path) -> dict[str, Any]:
    """One line of a ledger. Raises InputError with the file and the remedy when it is none."""
    try:
        found: dict[str, Any] = json.loads(line)
        whole = all(isinstance(found[name], kind) for name, kind in _NEEDS[found["kind"]].items())
    except (ValueError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise InputError(
            f"{path} has a line that is none of a ledger ({line[:40]!r}): move the file away to begin anew."
        )
    return found
