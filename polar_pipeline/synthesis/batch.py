"""Batches: many requests as one job of the endpoint's Batch API, answered within a day for a share of the price.

A batch is in the ledger before it is sent, and its name there is its metadata. So after a process was killed, at any
moment, the next one finds its batch again, or knows that it was never created.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.client import Say
from polar_pipeline.synthesis.connection import address, api_key, open_sdk
from polar_pipeline.synthesis.dialect import body_in, first_dialect, remembered
from polar_pipeline.synthesis.exceptions import FailureMonitor, advice, billed_too_much, classify_error, without_key
from polar_pipeline.synthesis.formats import TIMED_OUT, CallResult, Request, parse_reply, worst_dollars
from polar_pipeline.synthesis.ledger import Ledger
from polar_pipeline.synthesis.rate_limit import RateLimiter, RetryPolicy

if TYPE_CHECKING:
    from openai.types import Batch

_MAX_REQUESTS = 20_000  # of a batch: OpenAI takes 50,000 and 200 MB
_FIRST_POLL, _MAX_POLL = 1.0, 60.0  # seconds between two looks at a batch
_FINAL_STATES = {"completed", "failed", "expired", "cancelled"}

Answer = TypeVar("Answer")


class _RefusedError(InputError):
    """The endpoint refused a request, so that nothing was created."""


class BatchRun:
    """Asks the pending requests as batches. Afterwards see `failures` and `stopped`."""

    def __init__(
        self, pending: list[Request], ledger: Ledger, settings: SynthesisSettings, succeeded: bool, say: Say
    ) -> None:
        """`succeeded`: whether any request of the plan was answered before."""
        self._requests = {request.key: request for request in pending}
        self._ledger, self._settings, self._say = ledger, settings, say
        self._address, self._limiter = address(settings.base_url), RateLimiter(1, ledger)
        self._monitor = FailureMonitor(settings, self._address, len(pending), succeeded)
        known = remembered(ledger.folder, self._address, settings.model)
        self._dialect = first_dialect(settings, self._address, known)
        self._sent = Counter[str]()  # key of the request -> batches that it was in
        self.failures: dict[str, str] = {}  # key of the request -> how its last call failed
        self.stopped = ""  # what ended the run before all was answered, in words

    async def run(self) -> None:
        """Collect the batches of earlier processes, then send new ones, until all is answered or a cap is reached."""
        async with open_sdk(self._settings, self._dialect.path) as self._sdk:
            for name, calls in self._ledger.open_batches().items():
                if calls.keys() <= self._requests.keys():  # a batch of another plan waits for that plan
                    await self._collect(name, calls)
            while not self.stopped and (worst := self._sendable()):
                name, calls = self._ledger.reserve_batch(worst)
                if not calls:
                    self.stopped = f"{self._ledger.reached_cap(next(iter(worst.values())))} was reached"
                    return
                await self._send(name, calls)

    def _sendable(self) -> dict[str, float]:
        """Requests that may be sent once more, and the most that each can cost."""
        answered = self._ledger.outcomes(self._requests)
        keys = [key for key in self._requests if key not in answered and self._sent[key] < self._settings.attempts]
        return {key: worst_dollars(self._requests[key], self._settings) for key in keys[:_MAX_REQUESTS]}

    async def _send(self, name: str, calls: dict[str, int]) -> None:
        self._sent.update(calls.keys())
        target = {"method": "POST", "url": "/v1/chat/completions"}
        lines = [{"custom_id": key, **target, "body": body_in(self._dialect, self._requests[key])} for key in calls]
        content = "\n".join(json.dumps(line) for line in lines).encode()
        try:
            file = await self._ask(lambda: self._sdk.files.create(file=(f"{name}.jsonl", content), purpose="batch"))
            await self._ask(self._create, name, file.id)
        except _RefusedError:  # any other failure leaves it open, and the next run looks for the batch
            self._release(calls, "batch refused", free=True)
            raise
        await self._collect(name, calls)

    async def _create(self, name: str, file: str) -> None:
        """Create the batch, unless an attempt that seemed to fail did so."""
        if await self._look_up(name) is None:
            await self._sdk.batches.create(
                input_file_id=file,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={"submission": name},
            )

    async def _look_up(self, name: str) -> "Batch | None":
        async for batch in self._sdk.batches.list(limit=100):
            if (batch.metadata or {}).get("submission") == name:
                return batch
        return None

    async def _collect(self, name: str, calls: dict[str, int]) -> None:
        """Wait for the end of a batch and settle its `calls`. One that was never created cost nothing."""
        created = await self._ask(self._look_up, name)
        if created is None:
            self._release(calls, "never sent", free=True)
            return
        batch = await self._wait_for(created)
        left = dict(calls)
        for file in (batch.output_file_id, batch.error_file_id):
            if file:
                content = await self._ask(self._sdk.files.content, file)
                for line in content.text.splitlines():
                    self._settle(line, left)
        if batch.status == "completed":  # the endpoint may have worked on what its answer lacks
            self._release(left, "not in the batch", free=False)
            return
        self._release(left, f"batch {batch.status}", free=True)
        if batch.status == "failed":
            words = "; ".join(error.message or "" for error in (batch.errors.data if batch.errors else None) or [])
            said = without_key(words, api_key(self._settings).value)
            raise InputError(
                f"the endpoint at {self._address} could not take the batch ({said!r}): "
                "correct what it names, or set synthesis.batch to false."
            )

    async def _wait_for(self, batch: "Batch") -> "Batch":
        started, pause = time.monotonic(), _FIRST_POLL
        while batch.status not in _FINAL_STATES:
            counts = batch.request_counts
            done, total = (counts.completed + counts.failed, counts.total) if counts else (0, 0)
            rate = done / max(time.monotonic() - started, 1e-9)
            left = f", about {(total - done) / rate:.0f} s left" if rate else ""
            self._say(f"batch {batch.id}: {batch.status}, {done} of {total} requests{left}")
            await asyncio.sleep(pause)
            pause = min(1.5 * pause, _MAX_POLL)
            batch = await self._ask(self._sdk.batches.retrieve, batch.id)
        return batch

    def _settle(self, line: str, left: dict[str, int]) -> None:
        """Settle the call of one line of the batch's answer, and take it out of `left`. Other lines are ignored."""
        try:
            found = json.loads(line)
            answer = found.get("response") or {}
            status, body = answer.get("status_code"), json.dumps(answer.get("body"))
            key = found["custom_id"]
            call = left.pop(key)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        if status != 200:
            failure = f"status {status}" if status else "batch expired"
            self._release({key: call}, failure, free=True)
            self._monitor.record(failure)
            return
        reply = parse_reply(self._requests[key], body, self._settings)
        if not self._ledger.settle(call, reply) and self._settings.max_dollars is not None:
            self.stopped = self.stopped or billed_too_much(self._address)
        self._monitor.record(reply.outcome)

    def _release(self, calls: dict[str, int], outcome: str, free: bool) -> None:
        for key, call in calls.items():
            self._ledger.release(call, outcome, 0.0 if free else None, free)
            self.failures[key] = outcome

    async def _ask(self, call: Callable[..., Awaitable[Answer]], *arguments: str) -> Answer:
        """The answer to a call, after as many attempts as the settings allow. Raises InputError if none succeeds."""
        import openai

        retries = RetryPolicy(self._settings)
        while True:
            try:
                async with asyncio.timeout(self._settings.timeout):
                    return await call(*arguments)
            except TimeoutError:
                result = CallResult(failure=TIMED_OUT, charged=True)
            except openai.APIError as error:
                try:
                    result = classify_error(error, self._limiter, api_key(self._settings))
                except InputError as refused:  # the key
                    raise _RefusedError(str(refused)) from None
            if not await retries.wait_to_retry(result):
                break
        said = advice(result.failure, result.message, self._address, self._settings)
        if result.failure in ("status 404", "status 405"):
            said = f"the endpoint at {self._address} has no batches ({result.failure}): set synthesis.batch to false."
        raise _RefusedError(said) if result.free else InputError(said)
