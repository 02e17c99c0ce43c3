"""Batches: many requests as one job, which the endpoint answers within a day for a share of the price.

A batch is in the ledger before it is sent: its requests are reserved, and its name goes out as its metadata. So a process that was
killed at any moment finds its batch again, or knows that there never was one. What does not belong here: single requests.
"""

import asyncio
import json
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.client import TOO_LATE, Attempt, failed, open_sdk, request_body
from polar_pipeline.synthesis.endpoint import Progress, address, without_key
from polar_pipeline.synthesis.ledger import Ledger
from polar_pipeline.synthesis.pace import Pace
from polar_pipeline.synthesis.patience import Patience
from polar_pipeline.synthesis.prices import dollars, worst_tokens
from polar_pipeline.synthesis.reading import read_reply
from polar_pipeline.synthesis.request import Request
from polar_pipeline.synthesis.trouble import Trouble, dearer, no_batches, sentence

if TYPE_CHECKING:
    import openai
    from openai.types import Batch

_MOST = 20_000  # requests of a batch: OpenAI takes 50,000 and 200 MB
_FIRST_LOOK, _LAST_LOOK = 1.0, 60.0  # seconds between two looks at a batch, the first and the longest
_ENDED = {"completed", "failed", "expired", "cancelled"}

Found = TypeVar("Found")


class _Refused(InputError):
    """The endpoint said no, so that nothing came of what it was asked for."""


class Batches:
    """Asks what is pending by batches, and collects those that an earlier process left behind first."""

    def __init__(
        self,
        pending: deque[Request],
        ledger: Ledger,
        folder: Path,
        settings: SynthesisSettings,
        succeeded: bool,
        progress: Progress,
    ) -> None:
        self._requests = {request.key: request for request in pending}
        self._ledger, self._settings, self._progress = ledger, settings, progress
        self._pace, self._address = Pace(folder / "pace.json"), address(settings.base_url)
        self._trouble = Trouble(settings, self._address, len(pending), succeeded)
        self._sent = Counter[str]()  # request -> batches that it was in
        self.failures: dict[str, str] = {}  # request -> how its last call failed
        self.stopped = ""

    async def all(self) -> None:
        """Until everything is answered, a cap is reached, or each request went out as often as the settings allow."""
        self._sdk = open_sdk(self._settings)
        try:
            for name, keys in self._ledger.answers.submitted().items():
                # one of another plan stays counted, until that is asked for again
                if set(keys.values()) <= self._requests.keys():
                    await self._collect(await self._found(name), set(keys))
            while not self.stopped and (reserved := self._reserved()):
                await self._send(reserved)
        finally:
            await self._sdk.close()

    def _reserved(self) -> dict[str, Request]:
        """Reservations of as many requests as may go out once more, and as there is money for."""
        found: dict[str, Request] = {}
        for key, request in self._requests.items():
            if len(found) == _MOST:
                break
            if self._ledger.finished(key) or self._sent[key] >= self._settings.attempts:
                continue
            worst = dollars(*worst_tokens(request), self._settings)
            reservation = self._ledger.reserve(key, worst)
            if reservation is None:
                if not found:  # otherwise there is room again when these have come back
                    self.stopped = f"{self._ledger.full(worst)} was reached"
                break
            found[reservation] = request
        return found

    async def _send(self, reserved: dict[str, Request]) -> None:
        self._sent.update(request.key for request in reserved.values())
        name = self._ledger.submit(list(reserved))
        lines = "\n".join(
            json.dumps({"custom_id": reservation, "method": "POST", "url": "/v1/chat/completions", "body": request_body(request)})
            for reservation, request in reserved.items()
        )  # fmt: skip
        try:
            file = await self._asked(
                lambda: self._sdk.files.create(file=(f"{name}.jsonl", lines.encode()), purpose="batch")
            )
            await self._asked(lambda: self._created(name, file.id))
        except _Refused:  # otherwise nobody knows, and the next run looks it up
            self._release(set(reserved), "batch refused", free=True)
            raise
        await self._collect(await self._found(name), set(reserved))

    async def _created(self, name: str, file: str) -> None:
        """Create it, unless an attempt that seemed to fail did so."""
        if await self._look_up(name) is None:
            await self._sdk.batches.create(
                input_file_id=file,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={"submission": name},
            )

    async def _found(self, name: str) -> "Batch | None":
        return await self._asked(lambda: self._look_up(name))

    async def _look_up(self, name: str) -> "Batch | None":
        async for batch in self._sdk.batches.list(limit=100):
            if (batch.metadata or {}).get("submission") == name:
                return batch
        return None

    async def _collect(self, batch: "Batch | None", waiting: set[str]) -> None:
        """Wait for the batch's end and settle what is `waiting`, by reservation. One that was never made cost nothing."""
        if batch is None:
            self._release(waiting, "never sent", free=True)
            return
        batch = await self._end_of(batch)
        for file in (batch.output_file_id, batch.error_file_id):
            if file:
                content = await self._asked(lambda file=file: self._sdk.files.content(file))  # type: ignore[misc]
                for line in content.text.splitlines():
                    self._take(line, waiting)
        if batch.status == "completed":  # it may have worked on what it does not mention
            self._release(waiting, "not in the batch", free=False)
            return
        self._release(waiting, f"batch {batch.status}", free=True)
        if batch.status == "failed":
            said = "; ".join(error.message or "" for error in (batch.errors.data if batch.errors else None) or [])
            raise InputError(
                f"the endpoint at {self._address} could not take the batch ({without_key(said)!r}): "
                "correct what it names, or set synthesis.batch to false."
            )

    async def _end_of(self, batch: "Batch") -> "Batch":
        started, pause = time.monotonic(), _FIRST_LOOK
        while batch.status not in _ENDED:
            counts = batch.request_counts
            done, total = (counts.completed + counts.failed, counts.total) if counts else (0, 0)
            rate = done / max(time.monotonic() - started, 1e-9)
            left = f", about {(total - done) / rate:.0f} s left" if rate else ""
            self._progress(f"batch {batch.id}: {batch.status}, {done} of {total} requests{left}")
            await asyncio.sleep(pause)
            pause, name = min(1.5 * pause, _LAST_LOOK), batch.id
            batch = await self._asked(lambda name=name: self._sdk.batches.retrieve(name))  # type: ignore[misc]
        return batch

    def _take(self, line: str, waiting: set[str]) -> None:
        """Settle one line of a batch's answer; a line that says nothing of what is waiting is passed over."""
        try:
            found = json.loads(line)
            reservation, answer = found["custom_id"], found.get("response") or {}
            status, body = answer.get("status_code"), json.dumps(answer.get("body"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return
        if not isinstance(reservation, str) or reservation not in waiting:
            return
        waiting.discard(reservation)
        key = self._ledger.answers.key(reservation)
        if status != 200:
            failure = f"status {status}" if status else "batch expired"
            self._ledger.release(reservation, failure, free=True)
            self._ended(key, failure)
            return
        reply = read_reply(self._requests[key], body, self._settings)
        if not self._ledger.settle(reservation, reply) and self._settings.max_dollars is not None:
            self.stopped = self.stopped or dearer(self._address)
        self._ended(key, reply.outcome)

    def _ended(self, key: str, outcome: str) -> None:
        if key not in self._ledger.replies:
            self.failures[key] = outcome
        self._trouble.note(outcome)

    def _release(self, waiting: set[str], why: str, free: bool) -> None:
        for reservation in sorted(waiting):
            key, cost = self._ledger.answers.key(reservation), self._ledger.held(reservation)
            self._ledger.release(reservation, why, 0.0 if free else cost, free)
            self.failures[key] = why

    async def _asked(self, call: Callable[[], Awaitable[Found]]) -> Found:
        """What a call gives, after as many attempts as the settings allow. Raises InputError when none succeeds."""
        import openai

        patience = Patience(self._settings)
        while True:
            try:
                async with asyncio.timeout(self._settings.timeout):
                    return await call()
            except TimeoutError:
                attempt = Attempt(None, TOO_LATE, charged=True)
            except openai.APIError as error:
                attempt = self._failed(error)
            if not await patience.lasts(attempt):
                break
        said = sentence(attempt.failure, attempt.message, self._address, self._settings)
        if attempt.failure in ("status 404", "status 405"):
            said = no_batches(self._address, attempt.failure)
        raise _Refused(said) if attempt.free else InputError(said)

    def _failed(self, error: "openai.APIError") -> Attempt:
        try:
            return failed(error, self._pace)
        except InputError as refused:  # the key
            raise _Refused(str(refused)) from None
