"""How many requests may be in flight, when the next one may be sent, and whether a failed one is retried."""

import asyncio
import email.utils
import math
import random
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from polar_pipeline.settings.synthesis import SynthesisSettings

if TYPE_CHECKING:
    from polar_pipeline.endpoint.formats import CallResult
    from polar_pipeline.endpoint.ledger import Ledger

_MAX_WAIT = 600.0  # seconds; a longer wait means a spent daily quota, and the next attempt finds out
_WINDOW = 10.0  # seconds for which a number of remaining requests is believed that says no end
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?(ms|h|m|s)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 100  # characters of a wait or moment
_EPOCH = 1e9  # seconds; a larger number is a moment, and a thousand times larger one such a moment in milliseconds
# how headers name what is left in a window, and when the next one begins; {} is what is counted
_LEFT = ("x-ratelimit-remaining{}", "ratelimit-remaining{}", "anthropic-ratelimit{}-remaining")
_RESET = ("x-ratelimit-reset{}", "ratelimit-reset{}", "anthropic-ratelimit{}-reset")
_COMBINED = re.compile(r"\b(?:remaining|r)=0\b.*\b(?:reset|t)=(\d+)")  # the one header of the IETF's drafts
_WAITS = ("retryDelay", "retry_after", "estimated_time")  # fields of errors, in seconds
_IN_WORDS = re.compile(
    r"(?:try again|retry) (?:in|after) (?:about )?((?:\d+(?:\.\d+)? ?(?:ms|h|m|s)(?:[a-z]*) ?)+)", re.IGNORECASE
)
_TOLERATED = 0.1  # refusals per answer that do not lower the concurrency
_SLOW_START = 3.0  # requests more with each answer: four times as many in flight after each round
_FIRST_BACKOFF, _MAX_BACKOFF = 0.5, 60.0  # seconds
_MAX_SILENCE = 10  # time-outs without any answer, after which refusals that name a wait are no longer waited for
_RANDOM = random.Random()  # jitter, which has to differ between processes


class RateLimiter:
    """Limits the requests in flight of one process, and pauses all processes of the ledger when the endpoint says so.

    Use `async with limiter` around each request, and report how it ended. The limit begins at one and grows by three
    with each answer (slow start, Jacobson 1988) until the first refusals; then it follows additive increase and
    multiplicative decrease (Chiu and Jain 1989): half as many when more than one in ten is refused, one more after as
    many answers as the limit. It is never more than `x-ratelimit-remaining-requests` said within this window.
    Occasional refusals, which busy endpoints give at any load, change nothing.
    """

    def __init__(self, concurrency: int, ledger: "Ledger") -> None:
        self._concurrency, self._ledger = concurrency, ledger
        self._limit, self._slow_start = 1.0, True
        self._remaining, self._remaining_until = math.inf, 0.0
        self._in_flight, self._lowered = 0, 0.0
        self._credit = 1.0  # refusals that the answers so far make up for
        self._room = asyncio.Condition()

    @property
    def limit(self) -> int:
        """Requests that may be in flight now; at least one, or nobody would notice that there is room again."""
        remaining = self._remaining if time.monotonic() < self._remaining_until else math.inf
        return max(int(min(self._limit, remaining)), 1)

    async def __aenter__(self) -> None:
        """Wait for room, then for the end of a pause."""
        async with self._room:
            await self._room.wait_for(lambda: self._in_flight < self.limit)
            self._in_flight += 1
        try:
            while (pause := self.pause()) > 0:
                await asyncio.sleep(pause + 0.1 * _RANDOM.random())
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        """Make room."""
        async with self._room:
            self._in_flight -= 1
            self._room.notify(max(self.limit - self._in_flight, 0))

    def pause(self) -> float:
        """Seconds until the next request may be sent, at most ten minutes even if the clock was set back."""
        return min(max(self._ledger.paused_until() - time.time(), 0.0), _MAX_WAIT)

    def refused(self, sent: float) -> None:
        """Report a 429 to a request sent at `sent` (monotonic). Requests sent together lower the limit once."""
        self._credit -= 1
        if self._credit < 0 and sent > self._lowered:
            self._limit, self._lowered = max(self._limit / 2, 1.0), time.monotonic()
            self._slow_start = False

    def answered(self) -> None:
        """Report an answer."""
        self._limit = min(
            self._limit + (_SLOW_START if self._slow_start else 1 / self._limit), float(self._concurrency)
        )
        self._credit = min(max(self._credit, 0.0) + _TOLERATED, max(_TOLERATED * self._limit, 1.0))

    def update(self, headers: Mapping[str, str], refused: bool, error: Any = None) -> float:
        """Read a response's headers; `refused` is whether its status was an error, `error` what it says.

        Returns the seconds that the endpoint asks to wait, at most ten minutes, 0 when it does not say.
        """
        remaining = headers.get("x-ratelimit-remaining-requests", "").strip()
        if remaining.isascii() and remaining.isdigit():  # otherwise what it said before still holds
            self._remaining = float(remaining)
            reset = _seconds(headers.get("x-ratelimit-reset-requests", ""))
            self._remaining_until = time.monotonic() + min(reset or _WINDOW, _MAX_WAIT)
        wait = _retry_after(headers) if refused else 0.0
        wait = min(wait or _window_reset(headers) or wait_in(error), _MAX_WAIT)
        if wait > 0:
            self._ledger.pause_until(time.time() + wait)
        return wait


class RetryPolicy:
    """Decides whether a failed call is repeated, and waits before it.

    A refusal that names a wait does not count as an attempt: that is how a slow endpoint says that it works. Other
    waits double, with jitter, so that requests which were refused together do not come back together (Brooker 2015).
    """

    def __init__(self, settings: SynthesisSettings) -> None:
        self._settings = settings
        self._started, self._failures, self._backoff = time.monotonic(), 0, _FIRST_BACKOFF

    async def wait_to_retry(self, result: "CallResult", last_answer: float = 0.0) -> bool:
        """Wait and return True if the call is worth another attempt, else return False at once.

        `last_answer` is when any request was last answered (monotonic seconds).
        """
        self._failures += not result.wait
        if not result.retryable or self._failures >= self._settings.attempts:
            return False
        silence = time.monotonic() + result.wait - max(self._started, last_answer)
        if result.wait > 0 and silence > _MAX_SILENCE * self._settings.timeout:
            return False
        if result.wait:
            await asyncio.sleep(result.wait)
        elif not result.reply:  # an unreadable answer is asked for again at once
            await asyncio.sleep(self._backoff * (0.5 + _RANDOM.random() / 2))
            self._backoff = min(2 * self._backoff, _MAX_BACKOFF)
        return True


def _retry_after(headers: Mapping[str, str]) -> float:
    """Retry-After in seconds or as a date (RFC 9110, section 10.2.3); `retry-after-ms` is finer."""
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        if name in headers:
            return _number(headers[name]) / 1000
    return _seconds(headers.get("retry-after", ""))


def _window_reset(headers: Mapping[str, str]) -> float:
    """Seconds until a spent window of any `ratelimit` header begins anew; 0 when none is spent."""
    waits = [
        _seconds(headers.get(reset.format(what), ""))
        for what in ("", "-requests", "-tokens")
        for left, reset in zip(_LEFT, _RESET, strict=True)
        if headers.get(left.format(what), "").strip() == "0"
    ]
    combined = _COMBINED.search(headers.get("ratelimit", "")[: 5 * _LONGEST].replace(" ", ""))
    return max(waits, default=float(combined[1]) if combined else 0.0)


def wait_in(error: Any) -> float:
    """Seconds in a refusal's body: `Please try again in 7.66s`, `"retryDelay": "32s"`, `"estimated_time": 20.0`."""
    if isinstance(error, dict):
        named = max(_seconds(str(error.get(name, ""))) for name in _WAITS)
        return named or max(map(wait_in, error.values()), default=0.0)
    if isinstance(error, list):
        return max(map(wait_in, error), default=0.0)
    found = _IN_WORDS.search(error[: 20 * _LONGEST]) if isinstance(error, str) else None
    return _seconds(found[1]) if found else 0.0


def _seconds(text: str) -> float:
    """Seconds from now: `1s`, `6m0s`, `20ms`, plain seconds, a moment in seconds or milliseconds, or a date."""
    text = text[:_LONGEST]
    number = _number(text)
    if number > _EPOCH:
        moment = number / 1000 if number > 1000 * _EPOCH else number
        return max(moment - time.time(), 0.0) if moment < 1000 * _EPOCH else 0.0
    if number or not text:
        return number
    if re.match(r"\s*(\d{4}-|[A-Z][a-z]{2},)", text):
        try:
            date = datetime.fromisoformat(text) if text[:1].isdigit() else email.utils.parsedate_to_datetime(text)
            return max(date.timestamp() - time.time(), 0.0)
        except (ValueError, OverflowError):
            return 0.0
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))
    return seconds if math.isfinite(seconds) else 0.0


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return max(number, 0.0) if math.isfinite(number) else 0.0
