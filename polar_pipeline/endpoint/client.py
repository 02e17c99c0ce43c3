"""The client of an OpenAI-style endpoint: one call however it ends, and many at once."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from polar_pipeline.endpoint.answers import OK, TRUNCATED
from polar_pipeline.endpoint.connection import address, api_key, open_sdk
from polar_pipeline.endpoint.dialect import (
    Change,
    Dialect,
    adapted,
    body_in,
    default_path,
    first_dialect,
    is_too_large,
    remember,
    remembered,
    simpler,
)
from polar_pipeline.endpoint.exceptions import (
    FailureMonitor,
    billed_too_much,
    classify_error,
    error_inside,
    no_credit_left,
    without_secrets,
)
from polar_pipeline.endpoint.formats import TIMED_OUT, CallResult, Request, dollars, parse_reply, worst_dollars
from polar_pipeline.endpoint.ledger import Ledger
from polar_pipeline.endpoint.rate_limit import RateLimiter, RetryPolicy
from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.task.languages import Language

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import openai
    from openai._legacy_response import LegacyAPIResponse

_POLL = 0.05  # seconds between two looks at a cap that was reached
_SAY_EVERY = 5.0  # seconds between two lines of progress

Say = Callable[[str], None]  # takes a line of progress
Halves = Callable[[Request], list[Request]]  # the two halves of a request, none if it cannot be halved


class Endpoint(NamedTuple):
    """What is needed to ask the endpoint about one language."""

    language: Language
    settings: SynthesisSettings
    ledgers: Path  # folder of the ledger
    say: Say


class Client:
    """Sends single calls, which are reserved in the ledger, through an SDK that the caller opens and closes."""

    def __init__(
        self, sdk: "openai.AsyncOpenAI", settings: SynthesisSettings, limiter: RateLimiter, ledger: Ledger
    ) -> None:
        self._settings, self._limiter, self._ledger = settings, limiter, ledger
        self._sdks, self._root, self._key = {"": sdk}, str(sdk.base_url).rstrip("/"), api_key(settings)
        self._path = default_path(address(settings.base_url))  # of embeddings

    async def complete(self, call: int, request: Request, dialect: Dialect) -> CallResult:
        """Send a request once. A call that fails is released. Raises InputError for what every call would meet."""
        completions = self._at(dialect.path).chat.completions.with_raw_response
        result = await self._send(call, completions.create(**body_in(dialect, request)))
        if result.body is None:
            return result
        return result._replace(reply=parse_reply(request, result.body, self._settings))

    async def embed(self, call: int, model: str, texts: list[str]) -> CallResult:
        """Ask once for the vectors of texts; the answer is in `body`. Otherwise as `complete`."""
        embeddings = self._at(self._path).embeddings.with_raw_response
        result = await self._send(call, embeddings.create(model=model, input=texts, encoding_format="float"))
        if self._path and result.failure in ("status 404", "status 405") and not result.no_model:
            self._path = ""
            return result._replace(retryable=True)
        return result

    def _at(self, path: str) -> "openai.AsyncOpenAI":
        """The SDK for calls below a path behind the address."""
        if path not in self._sdks:
            self._sdks[path] = self._sdks[""].with_options(base_url=self._root + path)
        return self._sdks[path]

    async def _send(self, call: int, request: "Awaitable[LegacyAPIResponse[Any]]") -> CallResult:
        import openai

        try:
            async with asyncio.timeout(self._settings.timeout):  # for the whole of the answer
                response = await request
            self._limiter.update(response.headers, refused=False)
            body = without_secrets(_decoded(response.http_response), self._key)
            if (inside := error_inside(body, self._key)) is None:
                return CallResult(body=body)
            result = inside
        except TimeoutError:
            result = CallResult(failure=TIMED_OUT, charged=True)
        except openai.APIError as error:
            try:
                result = classify_error(error, self._limiter, self._key)
            except InputError:  # what all calls would meet
                self._ledger.release(call, "refused", free=True)
                raise
        except InputError:
            self._ledger.release(call, "refused", free=True)
            raise
        cost = None if result.charged else dollars(*result.tokens, self._settings)
        self._ledger.release(call, result.failure, cost, result.free)
        return result


def _decoded(response: Any) -> str:
    """The body as UTF-8, which JSON has to be; else as its header says."""
    try:
        return str(response.content.decode("utf-8"))
    except UnicodeDecodeError:
        return str(response.text)


class OnlineRun:
    """Asks the pending requests one by one, with as many workers as the settings allow.

    Each is reserved in the ledger before it is sent, and settled when it is answered. Afterwards see `failures` and
    `stopped`.
    """

    def __init__(
        self,
        pending: list[Request],
        ledger: Ledger,
        settings: SynthesisSettings,
        succeeded: bool,
        say: Say,
        halves: Halves,
    ) -> None:
        """`succeeded`: whether any request of the plan was answered before; `halves` gives those of a large request."""
        self._pending, self._ledger, self._settings, self._say = deque(pending), ledger, settings, say
        self._address = address(settings.base_url)
        self._monitor = FailureMonitor(settings, self._address, len(pending), succeeded)
        self._limiter = RateLimiter(settings.concurrency, ledger)
        self._halves, self._ended = halves, False  # ended: by an error that every request would meet
        self._total, self._done, self._in_flight = len(pending), 0, 0
        self._started = self._said = self._last_answer = time.monotonic()
        self._reserving = asyncio.Lock()
        known = remembered(ledger.folder, self._address, settings.model)
        self._dialect, self._answered = first_dialect(settings, self._address, known), False
        self.failures: dict[str, str] = {}  # key of the request -> how its last call failed
        self.stopped = ""  # what ended the run before all was answered, in words

    async def run(self) -> None:
        """Work until all is answered or a cap is reached. Raises InputError when it is clear that none can succeed."""
        async with open_sdk(self._settings) as sdk:
            self._client = Client(sdk, self._settings, self._limiter, self._ledger)
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._settings.concurrency, self._total)):
                        group.create_task(self._work())
            except BaseExceptionGroup as error:
                raise error.exceptions[0] from None

    async def _work(self) -> None:
        while self._pending and not self.stopped:
            request = self._pending.popleft()
            try:
                await self._answer(request)
            except InputError:
                self._ended = True
                raise
            self._done += 1
            self._report()

    def _halve(self, request: Request) -> bool:
        """Put the halves of a request in its place, if it has any."""
        halves = self._halves(request)
        self._pending.extendleft(reversed(halves))
        self._total += len(halves)
        return bool(halves)

    async def _answer(self, request: Request) -> None:
        """Call until the request needs no further call, at most as often as the settings allow."""
        retries, tried = RetryPolicy(self._settings), list[Dialect]()
        result = await self._call(request)
        while result and not self._ledger.finished(request.key) and not self.stopped:
            if result.reply and result.reply.outcome == TRUNCATED and self._halve(request):
                break
            other = self._adapted(request, result, tried)
            too_large = result.reply is None and is_too_large(result.failure, result.details)
            if other is None and too_large and self._halve(request):
                return
            if other is None and not await retries.wait_to_retry(result, self._last_answer):
                other = self._simpler(request, result, tried)
                if other is None:
                    break
            result = await self._call(request, other)
        if result and (result.reply or not self.stopped):
            self._record(request, result)

    def _adapted(self, request: Request, result: CallResult, tried: list[Dialect]) -> Dialect | None:
        """How to write a refused request otherwise, if its refusal was about that; `tried` are the ways so far.

        Before anything was answered it becomes the way of all requests, later that of this one alone: words of a
        single refusal say little about the others.
        """
        if result.reply or result.sent is None or result.no_model:
            return None
        tried.append(result.sent)
        other_way = (
            result.sent != self._dialect and self._dialect not in tried
        )  # another request has found it meanwhile
        if other_way and (not result.retryable or result.failure in ("status 500", "status 501")):
            return self._dialect
        if self._answered and result.failure.startswith(("status 5", "status 404", "status 405")):
            return None
        return self._chosen(adapted(result.sent, result.failure, result.details, request), tried)

    def _simpler(self, request: Request, result: CallResult, tried: list[Dialect]) -> Dialect | None:
        """A simpler way for a request that was refused without a reason, before anything was answered."""
        if result.reply or result.sent is None or self._answered:
            return None
        change = self._chosen(simpler(result.sent, result.failure, result.details, request), tried)
        if change is None and tried:  # none of them was better
            self._dialect = tried[0]
        return change

    def _chosen(self, change: Change | None, tried: list[Dialect]) -> Dialect | None:
        form = self._settings.answers
        if change is None or change.dialect in tried or not (form == "auto" or change.dialect.answers.startswith(form)):
            return None
        if not self._answered:
            self._dialect = change.dialect
            self._say(f"the endpoint at {self._address} is asked in another way: {change.why}")
        return change.dialect

    def _record(self, request: Request, result: CallResult) -> None:
        if not result.reply:
            self.failures[request.key] = result.failure
        if result.no_credit and not self._monitor.succeeded:
            raise InputError(f"{no_credit_left(self._address, result.failure, result.message)}.")
        self._monitor.record(result.reply.outcome if result.reply else result.failure, result.message)
        if result.no_credit:
            self._stop(no_credit_left(self._address, result.failure, result.message))

    async def _call(self, request: Request, dialect: Dialect | None = None) -> CallResult | None:
        """One call, when there is room and money for it; None when there is no money left."""
        async with self._limiter:
            call = await self._reserve(request)
            if call is None:
                return None
            sent = time.monotonic()
            result = await self._send(request, call, dialect or self._dialect)
            if result.failure == "status 429":
                self._limiter.refused(sent)
            if result.reply is None:
                return result
            self._limiter.answered()
            self._last_answer = time.monotonic()
            if not self._ledger.settle(call, result.reply) and self._settings.max_dollars is not None:
                self._stop(billed_too_much(self._address))
            if not self._answered and result.sent == self._dialect and result.reply.outcome == OK:
                self._answered = True
                self._remember()
            return result

    def _remember(self) -> None:
        try:
            remember(self._ledger.folder, self._address, self._settings.model, self._dialect)
        except OSError as error:  # costs the next run a few refused requests
            self._say(f"how the endpoint is asked cannot be kept ({error})")

    async def _send(self, request: Request, call: int, dialect: Dialect) -> CallResult:
        """Send a call. When another one has ended the run, its answer is still waited for and paid."""
        self._in_flight += 1
        sending = asyncio.ensure_future(self._client.complete(call, request, dialect))
        try:
            return (await asyncio.shield(sending))._replace(sent=dialect)
        except asyncio.CancelledError:
            if not self._ended:  # the process is to end
                sending.cancel()
            result = await asyncio.gather(sending, return_exceptions=True)
            if isinstance(result[0], CallResult) and result[0].reply:
                self._ledger.settle(call, result[0].reply)
            raise
        finally:
            self._in_flight -= 1

    async def _reserve(self, request: Request) -> int | None:
        """Reserve a call, if need be after calls in flight, also of other processes, cost less than their worst case.

        None when settled money alone leaves no room, or when nothing has changed for a time-out.
        """
        worst = worst_dollars(request, self._settings)
        async with self._reserving:
            seen, since = None, time.monotonic()
            while not (self.stopped or self._ended):
                call = self._ledger.reserve(request.key, worst)
                if call is not None:
                    return call
                now = self._ledger.account()
                if now != seen or self._in_flight:
                    seen, since = now, time.monotonic()
                cap = self._ledger.reached_cap(worst, if_all_free=True)
                if time.monotonic() - since > self._settings.timeout:
                    cap = cap or self._ledger.reached_cap(worst)
                if cap:
                    self._stop(f"{cap} was reached: ${now.settled:.4f} spent and ${now.open:.4f} reserved")
                else:
                    await asyncio.sleep(_POLL)
        return None

    def _stop(self, why: str) -> None:
        self.stopped = self.stopped or why

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._said < _SAY_EVERY:
            return
        self._said = now
        rate = self._done / (now - self._started)
        account = self._ledger.account()
        self._say(
            f"{self._done} of {self._total} requests, {rate:.1f} a second, "
            f"about {(self._total - self._done) / rate:.0f} s left; "
            f"all languages: ${account.settled:.4f} spent, ${account.open:.4f} reserved"
        )
