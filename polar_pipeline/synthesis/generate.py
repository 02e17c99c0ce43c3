"""Generation: a plan's requests through the client, each reserved in the ledger before it goes and settled when it is back.

Any number of workers take requests from one queue. What the ledger has already is not asked again, so an interrupted run goes
on where it stopped, and a finished one costs nothing. What does not belong here: what to ask, and what to make of the posts.
"""

import asyncio
import random
import time
from collections import Counter, deque
from pathlib import Path
from typing import NamedTuple

from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.answers import Calls
from polar_pipeline.synthesis.batch import Batches
from polar_pipeline.synthesis.client import Attempt, Client
from polar_pipeline.synthesis.endpoint import Progress, address, check_endpoint
from polar_pipeline.synthesis.flight import Flight
from polar_pipeline.synthesis.ledger import Account, Budget, Ledger
from polar_pipeline.synthesis.pace import Pace
from polar_pipeline.synthesis.patience import Patience
from polar_pipeline.synthesis.prices import dollars, worst_tokens
from polar_pipeline.synthesis.request import Reply, Request
from polar_pipeline.synthesis.trouble import Trouble, dearer, no_money

_LOOK_AGAIN = 0.05  # seconds until a cap is looked at again
_SAY_EVERY = 5.0  # seconds between two lines of progress


class Generated(NamedTuple):
    """Replies in the order of the requests (None for those without one), what was said on the way, and the sums."""

    replies: list[Reply | None]
    outcomes: Counter[str]  # of the requests: ok, refused, truncated, malformed, or how the last call for it failed
    stopped: str  # what ended it before the plan did, in words; "" when nothing did
    account: Account
    calls: Calls  # all that were ever made for these requests


def generate(
    requests: list[Request], folder: Path, language: str, settings: SynthesisSettings, progress: Progress
) -> Generated:
    """Ask everything that the ledger in `folder` does not have yet. Raises InputError when nothing can succeed."""
    with Ledger(folder, language, Budget(settings.max_dollars, settings.max_requests)) as ledger:
        pending = deque(request for request in requests if not ledger.finished(request.key))
        known = len(requests) - len(pending)
        if known:
            progress(f"{language}: {known} of {len(requests)} requests were answered before")
        replies = [ledger.replies.get(request.key) for request in requests]
        succeeded = any(reply and reply.outcome == "ok" for reply in replies)
        how = Batches if settings.batch else _Run
        run = how(pending, ledger, folder, settings, succeeded, lambda line: progress(f"{language}: {line}"))
        if pending:
            check_endpoint(settings.base_url)
            asyncio.run(run.all())
        replies = [ledger.replies.get(request.key) for request in requests]
        outcomes = Counter(
            reply.outcome if reply else run.failures.get(request.key, "unanswered")
            for request, reply in zip(requests, replies, strict=True)
        )
        calls = ledger.answers.calls({request.key for request in requests})
        return Generated(replies, outcomes, run.stopped, ledger.account(), calls)


class _Run:
    """One event loop's work."""

    def __init__(
        self,
        pending: deque[Request],
        ledger: Ledger,
        folder: Path,
        settings: SynthesisSettings,
        succeeded: bool,
        progress: Progress,
    ) -> None:
        self._pending, self._ledger, self._settings = pending, ledger, settings
        self._pace, self._address = Pace(folder / "pace.json"), address(settings.base_url)
        self._trouble = Trouble(settings, self._address, len(pending), succeeded)
        self._progress, self._total = progress, len(pending)
        self._random = random.Random()  # jitter, which should differ from process to process
        self._done, self._started, self._said = 0, time.monotonic(), time.monotonic()
        self._answered = time.monotonic()  # when anyone last was
        self._flying, self._hopeless = 0, False
        self.failures: dict[str, str] = {}  # request -> how its last call failed
        self.stopped = ""

    async def all(self) -> None:
        """Workers until the queue is empty, a cap is reached, or one of them finds that nothing can succeed."""
        self._flight, self._turn = Flight(self._settings.concurrency), asyncio.Lock()
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
        while self._pending and not self.stopped:
            await self._answer(self._pending.popleft())
            self._done += 1
            self._say()

    async def _answer(self, request: Request) -> None:
        """Calls until the ledger holds an answer, at most as many as the settings allow."""
        patience = Patience(self._settings)
        attempt = await self._attempt(request)
        while attempt and not self._ledger.finished(request.key) and not self.stopped:
            if not await patience.lasts(attempt, self._answered):
                break
            attempt = await self._attempt(request)
        if attempt and (attempt.reply or not self.stopped):
            self._ended(request, attempt)

    def _ended(self, request: Request, attempt: Attempt) -> None:
        if not attempt.reply:
            self.failures[request.key] = attempt.failure
        try:
            if attempt.spent and not self._trouble.succeeded:
                raise InputError(f"{no_money(self._address, attempt.failure, attempt.message)}.")
            self._trouble.note(attempt.reply.outcome if attempt.reply else attempt.failure, attempt.message)
        except InputError:
            self._hopeless = attempt.free
            raise
        if attempt.spent:
            self._stop(no_money(self._address, attempt.failure, attempt.message))

    async def _attempt(self, request: Request) -> Attempt | None:
        """One call, when there is room for it and money; None when there is none left."""
        async with self._flight:
            while (pause := self._pace.wait()) > 0:
                await asyncio.sleep(pause + 0.1 * self._random.random())
            worst = dollars(*worst_tokens(request), self._settings)
            reservation = await self._reserve(request.key, worst)
            if reservation is None:
                return None
            sent = time.monotonic()
            attempt = await self._call(request, reservation)
            self._learn(attempt, sent)
            if not attempt.reply:
                cost = self._ledger.held(reservation) if attempt.charged else 0.0
                self._ledger.release(reservation, attempt.failure, cost, attempt.free)
            elif not self._ledger.settle(reservation, attempt.reply) and self._settings.max_dollars is not None:
                self._stop(dearer(self._address))
            return attempt

    def _learn(self, attempt: Attempt, sent: float) -> None:
        self._flight.left(attempt.remaining)
        if attempt.failure == "status 429":
            self._flight.refused(sent)
        elif attempt.reply:
            self._flight.answered()
            self._answered = time.monotonic()

    async def _call(self, request: Request, reservation: str) -> Attempt:
        self._flying += 1
        try:
            return await self._client.call(request)
        except InputError:
            self._hopeless = True
            self._ledger.release(reservation, "status 401", free=True)
            raise
        except asyncio.CancelledError:
            if self._hopeless:  # refused for free, as the others were; otherwise nobody knows
                self._ledger.release(reservation, "refused with the others", free=True)
            raise
        finally:
            self._flying -= 1

    async def _reserve(self, key: str, worst: float) -> str | None:
        """A reservation, when need be after requests in flight have turned out cheaper than their worst case.

        Those of other processes too: given up only when what is settled leaves no room, or when nobody moves any more.
        """
        async with self._turn:
            seen, since = None, time.monotonic()
            while not self.stopped:
                reservation = self._ledger.reserve(key, worst)
                if reservation is not None:
                    return reservation
                now = self._ledger.account()
                if now != seen or self._flying:
                    seen, since = now, time.monotonic()
                cap = self._ledger.hopeless(worst)
                if time.monotonic() - since > self._settings.timeout:
                    cap = cap or self._ledger.full(worst)
                if cap:
                    self._stop(f"{cap} was reached: ${now.settled:.4f} spent and ${now.open:.4f} reserved")
                else:
                    await asyncio.sleep(_LOOK_AGAIN)
        return None

    def _stop(self, why: str) -> None:
        self.stopped = self.stopped or why

    def _say(self) -> None:
        now = time.monotonic()
        if now - self._said < _SAY_EVERY:
            return
        self._said = now
        rate = self._done / (now - self._started)
        left = (self._total - self._done) / rate
        account = self._ledger.account()
        self._progress(
            f"{self._done} of {self._total} requests, {rate:.1f} a second, about {left:.0f} s left; "
            f"all languages: ${account.settled:.4f} spent, ${account.open:.4f} reserved"
        )
