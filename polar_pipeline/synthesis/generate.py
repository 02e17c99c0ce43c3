"""Generation: a plan's requests through the client, each reserved in the ledger before it goes and settled when it is back.

Any number of workers take requests from one queue. What the ledger has already is not asked again, so an interrupted run goes
on where it stopped, and a finished one costs nothing. What does not belong here: what to ask, and what to make of the posts.
"""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from polar_pipeline.errors import InputError
from polar_pipeline.synthesis.client import Attempt, Client
from polar_pipeline.synthesis.ledger import Account, Budget, Ledger
from polar_pipeline.synthesis.pace import Pace
from polar_pipeline.synthesis.prices import dollars, worst_tokens
from polar_pipeline.synthesis.request import Reply, Request
from polar_pipeline.task.profile import SynthesisSettings

_FIRST_WAIT, _LONGEST_WAIT = 0.5, 60.0  # seconds of the backoff
_LOOK_AGAIN = 0.05  # seconds until a cap is looked at again
_SAY_EVERY = 5.0  # seconds between two lines of progress

Progress = Callable[[str], None]


class Generated(NamedTuple):
    """Replies in the order of the requests (None for those without one), what was said on the way, and the sums."""

    replies: list[Reply | None]
    outcomes: Counter[str]
    capped: bool  # whether a cap ended it before the plan did
    account: Account


def generate(
    requests: list[Request], folder: Path, language: str, settings: SynthesisSettings, progress: Progress
) -> Generated:
    """Ask everything that the ledger in `folder` does not have yet. Raises InputError for a key or model that is wrong."""
    budget = Budget(settings.max_dollars, settings.max_requests)
    with Ledger(folder, language, budget) as ledger:
        pending = deque(request for request in requests if not ledger.finished(request.key))
        known = len(requests) - len(pending)
        if known:
            progress(f"{language}: {known} of {len(requests)} requests were answered before")
        run = _Run(pending, ledger, Pace(folder / "pace.json"), settings, lambda line: progress(f"{language}: {line}"))
        if pending:
            asyncio.run(run.all())
        replies = [ledger.replies.get(request.key) for request in requests]
        outcomes = Counter(reply.outcome if reply else "unanswered" for reply in replies)
        return Generated(replies, outcomes, run.capped, ledger.account())


class _Run:
    """One event loop's work."""

    def __init__(
        self, pending: deque[Request], ledger: Ledger, pace: Pace, settings: SynthesisSettings, progress: Progress
    ) -> None:
        self._pending, self._ledger, self._pace, self._settings = pending, ledger, pace, settings
        self._progress, self._total = progress, len(pending)
        self._random = random.Random()  # jitter, which should differ from process to process
        self._done, self._started, self._said = 0, time.monotonic(), time.monotonic()
        self._flying, self._hopeless = 0, False
        self.capped = False

    async def all(self) -> None:
        """Workers until the queue is empty, a cap is reached, or one of them finds that nothing can succeed."""
        self._client = Client(self._settings, self._pace)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._settings.concurrency, self._total)):
                    group.create_task(self._work())
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        finally:
            await self._client.close()

    async def _work(self) -> None:
        while self._pending and not self.capped:
            await self._answer(self._pending.popleft())
            self._done += 1
            self._say()

    async def _answer(self, request: Request) -> None:
        """Calls until the ledger holds an answer, at most as many as the settings allow."""
        worst, wait = dollars(*worst_tokens(request), self._settings), _FIRST_WAIT
        for _ in range(self._settings.attempts):
            while (pause := self._pace.wait()) > 0:
                await asyncio.sleep(pause + 0.1 * self._random.random())
            reservation = await self._reserve(request.key, worst)
            if reservation is None:
                return
            attempt = await self._call(request, reservation)
            if attempt.reply:
                self._ledger.settle(reservation, attempt.reply)
                if self._ledger.finished(request.key):
                    return
                continue
            self._ledger.release(reservation, attempt.failure, worst if attempt.charged else 0.0)
            if not attempt.again:
                return
            # jitter, so that workers that were refused together do not come back together (Brooker 2015)
            await asyncio.sleep(attempt.wait or wait * (0.5 + self._random.random() / 2))
            wait = min(2 * wait, _LONGEST_WAIT)

    async def _call(self, request: Request, reservation: str) -> Attempt:
        self._flying += 1
        try:
            return await self._client.call(request)
        except InputError:
            self._hopeless = True
            self._ledger.release(reservation, "refused")
            raise
        except asyncio.CancelledError:
            if self._hopeless:  # one key and one model for all, so these are refused too; otherwise nobody knows
                self._ledger.release(reservation, "refused with the others")
            raise
        finally:
            self._flying -= 1

    async def _reserve(self, key: str, worst: float) -> str | None:
        """A reservation, when need be after requests in flight have turned out cheaper than their worst case."""
        while not self.capped:
            reservation = self._ledger.reserve(key, worst)
            if reservation is not None:
                return reservation
            self.capped = self._flying == 0
            await asyncio.sleep(_LOOK_AGAIN)
        return None

    def _say(self) -> None:
        now = time.monotonic()
        if now - self._said < _SAY_EVERY:
            return
        self._said = now
        rate = self._done / (now - self._started)
        left = (self._total - self._done) / rate
        account = self._ledger.account()
        self._progress(
            f"{self._done} of {self._total} requests, {rate:.1f} a second, about {left:.0f} s left, ${account.settled:.4f} spent"
        )
