"""The client of an OpenAI-style endpoint: its address and key, and one call, however it ends."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.exceptions import classify_error
from polar_pipeline.synthesis.formats import TIMED_OUT, CallResult, Request, parse_reply, request_body
from polar_pipeline.synthesis.rate_limit import RateLimiter
from polar_pipeline.task.languages import Language

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import openai
    from openai._legacy_response import LegacyAPIResponse

_OPENAI = "https://api.openai.com/v1"
_CONNECT_TIMEOUT = 10.0  # seconds

Say = Callable[[str], None]  # takes a line of progress


class Endpoint(NamedTuple):
    """What is needed to ask the endpoint about one language."""

    language: Language
    settings: SynthesisSettings
    ledgers: Path  # folder of the ledger
    say: Say


def address(base_url: str | None) -> str:
    """The URL for requests: the profile's, else OPENAI_BASE_URL, else OpenAI's. Raises InputError if it is none."""
    chosen = (base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI).strip()
    try:
        parts = urlsplit(chosen)
        legal = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        legal = False
    if not legal or not chosen.isprintable() or " " in chosen:
        raise InputError(
            f"{chosen!r} is not the address of an endpoint: write synthesis.base_url (or OPENAI_BASE_URL) "
            "like http://localhost:8000/v1."
        )
    return chosen.rstrip("/")


def api_key() -> str:
    """The key in OPENAI_API_KEY. Raises InputError if there is none, or if no HTTP header can carry it."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()  # a key read from a file may end in a newline
    if not key:
        raise InputError(
            "OPENAI_API_KEY is not set: export the endpoint's key (any word for a local server without one)."
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InputError("OPENAI_API_KEY holds characters that no key has: copy it anew, without spaces or quotes.")
    return key


def check_endpoint(base_url: str | None) -> None:
    """Check address and key without sending anything. Raises InputError if one is of no use."""
    address(base_url)
    api_key()


class Client:
    """Sends single requests to the settings' endpoint."""

    def __init__(self, settings: SynthesisSettings, limiter: RateLimiter) -> None:
        self._settings, self._limiter = settings, limiter
        self._sdk = open_sdk(settings)

    async def __aenter__(self) -> "Client":
        """The client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._sdk.close()

    async def complete(self, request: Request) -> CallResult:
        """Send a request once. Raises InputError for a refused key."""
        result = await self._send(self._sdk.chat.completions.with_raw_response.create(**request_body(request)))
        return (
            result if result.body is None else result._replace(reply=parse_reply(request, result.body, self._settings))
        )

    async def embed(self, model: str, texts: list[str]) -> CallResult:
        """Ask once for the vectors of texts; the answer is in `body`. Raises InputError for a refused key."""
        embeddings = self._sdk.embeddings.with_raw_response
        return await self._send(embeddings.create(model=model, input=texts, encoding_format="float"))

    async def _send(self, call: "Awaitable[LegacyAPIResponse[Any]]") -> CallResult:
        import openai

        try:
            async with asyncio.timeout(self._settings.timeout):  # for the whole of the answer
                response = await call
        except TimeoutError:
            return CallResult(failure=TIMED_OUT, charged=True)
        except openai.APIError as error:
            return classify_error(error, self._limiter)
        self._limiter.update(response.headers, refused=False)
        return CallResult(body=response.http_response.content.decode("utf-8", "replace"))


def open_sdk(settings: SynthesisSettings) -> "openai.AsyncOpenAI":
    """The SDK with the settings' address and the environment's key. It retries nothing, because RetryPolicy does."""
    import openai

    # shorter than the time-out of the answer, so that a silent address and a slow answer can be told apart
    connect = min(_CONNECT_TIMEOUT, settings.timeout / 2)
    return openai.AsyncOpenAI(
        api_key=api_key(),
        base_url=address(settings.base_url),
        max_retries=0,
        timeout=openai.Timeout(None, connect=connect, pool=connect),
    )
