"""The client: one call of an OpenAI-style endpoint, and how it ended, whatever happened.

429, 5xx, time-outs and lost connections are worth another try; an answer with status 200 is a reply, because it has been paid
for. What does not belong here: prompts, what an answer means, the ledger, trying again.
"""

import asyncio
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.endpoint import address, key, without_key
from polar_pipeline.synthesis.pace import Pace, remaining
from polar_pipeline.synthesis.prices import answer_format
from polar_pipeline.synthesis.reading import read_reply
from polar_pipeline.synthesis.request import Reply, Request

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import openai
    from openai._legacy_response import LegacyAPIResponse

UNREACHED, TOO_LATE, BROKEN = "no connection", "no answer in time", "the connection broke"
_CONNECT = 10.0  # seconds; whatever takes longer to say hello does not listen
# by name, because the SDK has changed the package that they come from
_NEVER_OPENED = {"ConnectError", "ConnectTimeout", "UnsupportedProtocol", "LocalProtocolError", "PoolTimeout"}


class Attempt(NamedTuple):
    """How one call ended: with a reply, or with a failure, and whether that is worth another try."""

    reply: Reply | None
    failure: str = ""  # one of the above, or `status 429`
    message: str = ""  # the endpoint's own words, without the key
    again: bool = True
    wait: float = 0.0  # seconds that the endpoint asked for
    charged: bool = False  # whether the endpoint may have worked on it, and so may charge for it
    spent: bool = False  # whether it says that the account behind the key has no money left
    remaining: float = math.inf  # requests that the endpoint says are left in its window
    body: str | None = None  # of an answer with status 200

    @property
    def free(self) -> bool:
        """Refused before any work was done: counts neither as money nor as a request."""
        return self.failure == UNREACHED or self.failure.startswith("status 4")


class Client:
    """Calls one endpoint. The key comes from OPENAI_API_KEY, the address from the profile or OPENAI_BASE_URL."""

    def __init__(self, settings: SynthesisSettings, pace: Pace) -> None:
        self._settings, self._pace = settings, pace
        self._sdk = open_sdk(settings)

    async def close(self) -> None:
        """Let the connections go."""
        await self._sdk.close()

    async def call(self, request: Request) -> Attempt:
        """Send it once. Raises InputError for a key that every call would fail with."""
        attempt = await self._sent(self._sdk.chat.completions.with_raw_response.create(**request_body(request)))
        if attempt.body is None:
            return attempt
        return attempt._replace(reply=read_reply(request, attempt.body, self._settings))

    async def embed(self, model: str, texts: list[str]) -> Attempt:
        """Ask once for the vectors of texts; what came is in `body`. Raises InputError as `call` does."""
        return await self._sent(
            self._sdk.embeddings.with_raw_response.create(model=model, input=texts, encoding_format="float")
        )

    async def _sent(self, call: "Awaitable[LegacyAPIResponse[Any]]") -> Attempt:
        """How a call ends; the time-out is for the whole of it."""
        import openai

        try:
            async with asyncio.timeout(self._settings.timeout):
                response = await call
        except TimeoutError:
            return Attempt(None, TOO_LATE, charged=True)
        except openai.APIError as error:
            return failed(error, self._pace)
        self._pace.heed(response.headers, refused=False)
        content = response.http_response.content.decode("utf-8", "replace")
        return Attempt(None, remaining=remaining(response.headers), body=content)


def open_sdk(settings: SynthesisSettings) -> "openai.AsyncOpenAI":
    """The SDK for the settings' address, with the key of the environment."""
    import openai

    hello = min(_CONNECT, settings.timeout / 2)  # so that a silent address is told from a slow answer
    return openai.AsyncOpenAI(
        api_key=key(),
        base_url=address(settings.base_url),
        max_retries=0,  # the rules are ours
        timeout=openai.Timeout(None, connect=hello, pool=hello),
    )


def failed(error: "openai.APIError", pace: Pace) -> Attempt:
    """What an error of the SDK means. Raises InputError for a key that is refused."""
    import openai

    if isinstance(error, openai.AuthenticationError):
        # without the endpoint's own words: they are about the key
        raise InputError(
            f"the endpoint refused the key (status {error.status_code}): set OPENAI_API_KEY to a valid one."
        )
    if isinstance(error, openai.APIStatusError):
        return _refused(error, pace)
    if type(error.__cause__).__name__ in _NEVER_OPENED:
        return Attempt(None, UNREACHED, without_key(str(error.__cause__)))
    return Attempt(None, TOO_LATE if isinstance(error, openai.APITimeoutError) else BROKEN, charged=True)


def _refused(error: "openai.APIStatusError", pace: Pace) -> Attempt:
    status, headers = error.status_code, error.response.headers
    wait = pace.heed(headers, refused=True)
    spent = status == 402 or error.code == "insufficient_quota"
    again = (status in (408, 409, 429) or status >= 500) and not spent
    words = error.body.get("message") if isinstance(error.body, dict) else error.body
    message = without_key(words if isinstance(words, str) else "")
    return Attempt(None, f"status {status}", message, again, wait, spent=spent, remaining=remaining(headers))


def request_body(request: Request) -> dict[str, Any]:
    """What the endpoint is sent, as JSON."""
    return {
        "model": request.model,
        "messages": [message.model_dump() for message in request.messages],
        request.max_tokens_name: request.max_tokens,
        "response_format": answer_format(request),
        **({} if request.temperature is None else {"temperature": request.temperature}),
    }
