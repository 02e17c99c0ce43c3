"""Batches: many requests as one job of the endpoint's Batch API, answered within a day for a share of the price.

A batch is in the ledger before it is sent, and its name there is its metadata. So after a process was killed, at any
moment, the next one finds its batch again, or knows that it was never created. That one may have another plan, other
prices, or no batches: the ledger has the requests of an open batch and what they were to cost.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from polar_pipeline.endpoint.client import Say
from polar_pipeline.endpoint.connection import address, api_key, open_sdk
from polar_pipeline.endpoint.dialect import body_in, first_dialect, remembered
from polar_pipeline.endpoint.exceptions import (
    FailureMonitor,
    advice,
    billed_too_much,
    classify_error,
    error_inside,
    without_key,
    without_secrets,
)
from polar_pipeline.endpoint.formats import TIMED_OUT, CallResult, Request, dollars, parse_reply, worst_dollars
from polar_pipeline.endpoint.ledger import BatchCall, Ledger
from polar_pipeline.endpoint.rate_limit import RateLimiter, RetryPolicy
from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.storage.record import Record

if TYPE_CHECKING:
    from openai.types import Batch

_MAX_REQUESTS = 20_000  # of a batch: OpenAI takes 50,000 and 200 MB
_FIRST_POLL, _MAX_POLL = 1.0, 60.0  # seconds between two looks at a batch
_FINAL_STATES = {"completed", "failed", "expired", "cancelled"}

Answer = TypeVar("Answer")


class _RefusedError(InputError):
    """The endpoint refused every attempt, so that nothing was created."""


class _NoBatchesError(_RefusedError):
    """The endpoint has no Batch API, or not what was asked of it."""


class SentRequest(Record):
    """A request of a batch, its prices and its account, as the ledger keeps them until the batch has ended."""

    request: Request
    account: str = ""  # hash of the request's key and all secrets that went with it; "" in older versions
    price_prompt: float
    price_completion: float
    price_batch: float


class BatchRun:
    """Asks a plan as batches, or only collects those of earlier processes. Afterwards see `failures` and `stopped`."""

    def __init__(self, requests: list[Request], ledger: Ledger, settings: SynthesisSettings, say: Say) -> None:
        """`requests` is the whole plan."""
        self._requests = {request.key: request for request in requests}
        self._ledger, self._say = ledger, say
        self._settings = settings.model_copy(update={"batch": True})  # a batch has its price in any run
        self._address, self._limiter = address(settings.base_url), RateLimiter(1, ledger)
        known = remembered(ledger.folder, self._address, settings.model)
        self._dialect = first_dialect(settings, self._address, known)
        answered = ledger.outcomes(self._requests)
        pending = len(self._requests) - len(answered)
        self._monitor = FailureMonitor(settings, self._address, pending, "ok" in answered.values())
        self._sent = Counter[str]()  # key of the request -> batches that it was in
        self.failures: dict[str, str] = {}  # key of the request -> how its last call failed
        self.stopped = ""  # what ended the run before all was answered, in words

    async def run(self) -> None:
        """Collect the batches of earlier processes, then send new ones, until all is answered or a cap is reached."""
        await self.collect()
        async with open_sdk(self._settings, self._dialect.path) as self._sdk:
            while not self.stopped and (wanted := self._sendable()):
                name, calls = self._ledger.reserve_batch(wanted)
                if not calls:
                    worst, _ = next(iter(wanted.values()))
                    self.stopped = f"{self._ledger.reached_cap(worst)} was reached"
                    return
                await self._send(name, calls)

    async def collect(self) -> None:
        """Wait for the open batches that have any request of the plan. Those of other plans wait for these plans."""
        if not (batches := self._ledger.open_batches(self._requests)):
            return
        async with open_sdk(self._settings, self._dialect.path) as self._sdk:
            for name, calls in batches.items():
                self._say(f"{len(calls)} requests are in a batch of an earlier run, which is waited for")
                try:
                    await self._collect(name, calls)
                except _NoBatchesError:
                    raise InputError(
                        f"the endpoint at {self._address} does not have the batch in which an earlier run left "
                        f"{len(calls)} requests: start the one that took it there, use the key that it was sent with, "
                        "or give the batch up with `polar synth retry --open-batches`, which counts it at its worst "
                        "case and has it asked again."
                    ) from None

    def _sendable(self) -> dict[str, tuple[float, str]]:
        """Requests that may be sent once more: the most that each can cost, and what the ledger keeps of it."""
        answered = self._ledger.outcomes(self._requests)
        keys = [key for key in self._requests if key not in answered and self._sent[key] < self._settings.attempts]
        prices = self._settings.model_dump(include={"price_prompt", "price_completion", "price_batch"})
        return {
            key: (
                worst_dollars(self._requests[key], self._settings),
                SentRequest(request=self._requests[key], account=self._account(key), **prices).model_dump_json(),
            )
            for key in keys[:_MAX_REQUESTS]
        }

    async def _send(self, name: str, calls: dict[str, BatchCall]) -> None:
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
        if refused := await self._collect(name, calls):
            raise InputError(refused)

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

    async def _collect(self, name: str, calls: dict[str, BatchCall]) -> str:
        """Wait for the end of a batch and settle its `calls`. One that was never created cost nothing.

        Returns one sentence if the endpoint did not take the batch.
        """
        created = await self._ask(self._look_up, name)
        if created is None:
            if any(self._of_another_account(key, call) for key, call in calls.items()):
                raise _NoBatchesError(name)  # nobody can say whether it was ever sent
            self._release(calls, "never sent", free=True)
            return ""
        batch = await self._wait_for(created)
        left, outcomes = dict(calls), list[str]()
        for file in (batch.output_file_id, batch.error_file_id):
            if file:
                content = await self._ask(self._sdk.files.content, file)
                outcomes += [self._settle(line, left) for line in content.text.splitlines()]
        if batch.status == "completed":  # the endpoint may have worked on what its answer lacks
            self._release(left, "not in the batch", free=False)
        else:
            self._release(left, f"batch {batch.status}", free=True)
        for outcome in filter(None, outcomes):  # only now, since all of it is paid for
            self._monitor.record(outcome)
        if batch.status != "failed":
            return ""
        words = "; ".join(error.message or "" for error in (batch.errors.data if batch.errors else None) or [])
        said = without_key(words, api_key(self._settings))
        return (
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

    def _settle(self, line: str, left: dict[str, BatchCall]) -> str:
        """Settle the call of one line of the batch's answer, take it out of `left`, and return how it ended.

        Other lines are ignored; a call whose request nobody knows any more stays open for a plan that has it.
        """
        try:
            found = json.loads(line)
            answer = found.get("response") or {}
            status, body = answer.get("status_code"), json.dumps(answer.get("body"))
            key = found["custom_id"]
            call = left[key]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return ""
        if status is None:  # the batch ended before this request
            return ""
        del left[key]
        if status != 200:
            self._release({key: call}, f"status {status}", free=True)
            return f"status {status}"
        request, settings = self._as_sent(key, call)
        if request is None:
            return ""
        body = without_secrets(body, api_key(self._settings))
        if (inside := self._error_in(body)) is not None:
            self._ledger.release(call.id, inside.failure, dollars(*inside.tokens, settings), inside.free)
            return inside.failure
        reply = parse_reply(request, body, settings)
        if not self._ledger.settle(call.id, reply) and settings.max_dollars is not None:
            self.stopped = self.stopped or billed_too_much(self._address)
        return reply.outcome

    def _error_in(self, body: str) -> CallResult | None:
        """The error that stands in place of an answer, or None."""
        try:
            return error_inside(body, api_key(self._settings))
        except InputError:  # of the key: the other answers of the batch are taken all the same
            return CallResult(failure="refused", inside=True)

    def _as_sent(self, key: str, call: BatchCall) -> tuple[Request | None, SynthesisSettings]:
        """The request of a call, and settings with the prices that it was sent at.

        Where the ledger does not know them, as it is with calls of older versions, those of the plan.
        """
        try:
            sent = SentRequest.model_validate_json(call.sent)
        except ValidationError:
            return self._requests.get(key), self._settings
        return sent.request, self._settings.model_copy(update=sent.model_dump(exclude={"request", "account"}))

    def _account(self, key: str) -> str:
        """A hash of what may decide whose batches are seen: the key, and what headers and query carry."""
        secret = api_key(self._settings)
        return fingerprint([key, secret.value, *secret.others])

    def _of_another_account(self, key: str, call: BatchCall) -> bool:
        try:
            account = SentRequest.model_validate_json(call.sent).account
        except ValidationError:
            return False
        return account not in ("", self._account(key))

    def _release(self, calls: Mapping[str, BatchCall], outcome: str, free: bool) -> None:
        for key, call in calls.items():
            self._ledger.release(call.id, outcome, 0.0 if free else None, free)
            self.failures[key] = outcome

    async def _ask(self, call: Callable[..., Awaitable[Answer]], *arguments: str) -> Answer:
        """The answer to a call, after as many attempts as the settings allow. Raises InputError if none succeeds."""
        import openai

        retries, free = RetryPolicy(self._settings), True
        while True:
            try:
                async with asyncio.timeout(self._settings.timeout):
                    return await call(*arguments)
            except TimeoutError:
                result = CallResult(failure=TIMED_OUT, charged=True)
            except openai.APIError as error:
                try:
                    result = classify_error(error, self._limiter, api_key(self._settings))
                except InputError as met:  # what all calls would meet
                    raise (_RefusedError if free else InputError)(str(met)) from None
            free = free and result.free  # an attempt that seemed to fail may have made the batch
            if not await retries.wait_to_retry(result):
                break
        said = advice(result.failure, result.message, self._address, self._settings)
        refused: type[InputError] = _RefusedError
        if result.failure in ("status 404", "status 405"):
            said = f"the endpoint at {self._address} has no batches ({result.failure}): set synthesis.batch to false."
            refused = _NoBatchesError
        raise (refused if free else InputError)(said)
