"""Reads the ledgers of older homes: one append-only file of JSON lines per language, `<language>.jsonl`."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polar_pipeline.errors import InputError
from polar_pipeline.synthesis.formats import Reply

# the fields that a line of each kind has to have
_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "reserve": {"reservation": str, "key": str, "dollars": (int, float)},
    "submit": {"name": str, "reservations": list},
    "reply": {"reservation": str, "dollars": (int, float), "reply": dict},
    "end": {"reservation": str, "dollars": (int, float), "reason": str},
    "again": {"key": str},
}


@dataclass
class OldCall:
    """One call; `dollars` and `outcome` are None while it is open."""

    key: str
    reserved: float
    bound: float
    dollars: float | None = None
    outcome: str | None = None
    free: bool = False
    reply: str | None = None  # JSON
    discarded: bool = False
    batch: str | None = None


def read_jsonl(path: Path) -> tuple[list[OldCall], str]:
    """The calls in an old ledger, ended ones in the order of their ends, then open ones; and the sha256 of the file.

    A torn last line, which a dying machine leaves, is ignored. Raises InputError for any other damage.
    """
    content = path.read_bytes()
    still_open: dict[str, OldCall] = {}
    ended: list[OldCall] = []
    for line in content[: content.rfind(b"\n") + 1].splitlines():
        entry = _parse(line, path)
        if entry["kind"] == "reserve":
            bound = entry.get("bound", entry["dollars"])
            still_open[entry["reservation"]] = OldCall(entry["key"], entry["dollars"], bound)
        elif entry["kind"] == "submit":
            for reservation in entry["reservations"]:
                if reservation in still_open:
                    still_open[reservation].batch = entry["name"]
        elif entry["kind"] == "again":
            for call in ended:
                call.discarded = call.discarded or call.key == entry["key"]
        else:
            call = still_open.pop(entry["reservation"], OldCall("", entry["dollars"], 0.0))
            call.dollars, call.free = entry["dollars"], bool(entry.get("free"))
            if entry["kind"] == "reply":
                reply = Reply.model_validate(entry["reply"])
                call.key, call.outcome, call.reply = reply.key, reply.outcome, reply.model_dump_json()
            else:
                call.outcome = entry["reason"]
            ended.append(call)
    return ended + list(still_open.values()), hashlib.sha256(content).hexdigest()


def _parse(line: bytes, path: Path) -> dict[str, Any]:
    try:
        entry: dict[str, Any] = json.loads(line)
        valid = all(isinstance(entry[name], kind) for name, kind in _FIELDS[entry["kind"]].items())
        if valid and entry["kind"] == "reply":
            Reply.model_validate(entry["reply"])
    except (ValueError, KeyError, TypeError, RecursionError):
        valid = False
    if not valid:
        raise InputError(
            f"{path} has a line that no ledger has ({line[:40]!r}): correct it, or move the file away to begin anew."
        )
    return entry
