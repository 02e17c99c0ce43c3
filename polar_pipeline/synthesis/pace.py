"""The pace: how fast requests may go out, learned from the endpoint and shared by all processes of a home.

The endpoint says when to wait (`Retry-After`) and how much is left (`x-ratelimit-remaining-*`, `x-ratelimit-reset-*`, as OpenAI
and vLLM's gateways send them). Both become one moment before which nobody sends, in a file that every process reads.
"""

import email.utils
import json
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from polar_pipeline.storage.files import write_atomic

_LONGEST = 600.0  # seconds; a longer wait than this is a spent daily quota, and the next attempt says so
_PARTS = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Pace:
    """A moment in a file: `not_before`, in seconds since the epoch."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._lock = path, FileLock(path.with_suffix(".lock"))
        self._seen: tuple[int, float] = (0, 0.0)  # the file's time, and what it held

    def wait(self) -> float:
        """Seconds until the next request may go out; 0 when it may now."""
        try:
            changed = self._path.stat().st_mtime_ns
        except FileNotFoundError:
            return 0.0
        if changed != self._seen[0]:
            self._seen = (changed, float(json.loads(self._path.read_text(encoding="utf-8"))["not_before"]))
        return min(max(self._seen[1] - time.time(), 0.0), _LONGEST)  # a clock that was set back holds nobody for long

    def heed(self, headers: Mapping[str, str], refused: bool) -> float:
        """Take in what a response said; `refused` is whether its status was an error.

        Returns the seconds to wait, at most ten minutes, and 0 when none were said.
        """
        wait = _sane(_retry_after(headers) if refused else _spent(headers))
        if wait > 0:
            self._hold(time.time() + wait)
        return wait

    def _hold(self, until: float) -> None:
        with self._lock:
            if self.wait() < until - time.time():
                write_atomic(self._path, json.dumps({"not_before": until}).encode("utf-8"))


def remaining(headers: Mapping[str, str]) -> float:
    """Requests that the endpoint says are left in its window; infinity when it does not say."""
    left = headers.get("x-ratelimit-remaining-requests", "").strip()
    return float(left) if left.isascii() and left.isdigit() else math.inf


def _sane(wait: float) -> float:
    return min(wait, _LONGEST) if math.isfinite(wait) else 0.0


def _retry_after(headers: Mapping[str, str]) -> float:
    """RFC 9110, section 10.2.3: seconds, or a date; OpenAI's `retry-after-ms` is finer."""
    if "retry-after-ms" in headers:
        return _number(headers["retry-after-ms"]) / 1000
    value = headers.get("retry-after", "")
    if not value:
        return _spent(headers)
    if _number(value):
        return _number(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return 0.0


def _spent(headers: Mapping[str, str]) -> float:
    """Seconds until a window that has nothing left begins anew."""
    waits = [
        _duration(headers.get(f"x-ratelimit-reset-{what}", ""))
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0"
    ]
    return max(waits, default=0.0)


def _duration(text: str) -> float:
    """`1s`, `6m0s`, `20ms` or plain seconds."""
    parts = _PARTS.findall(text)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else _number(text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return max(number, 0.0) if math.isfinite(number) else 0.0
