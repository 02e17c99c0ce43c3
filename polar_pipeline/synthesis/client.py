"""The client: one call of an OpenAI-style endpoint, and what its answer means, whatever it is.

A wrong key or model is an error that stops everything; 429, 5xx, time-outs and lost connections are worth another try; an answer
with status 200 is a reply, because it has been paid for, also when nothing in it can be read. What does not belong here:
prompts, the ledger, trying again.
"""

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from polar_pipeline.errors import InputError
from polar_pipeline.synthesis.pace import Pace
from polar_pipeline.synthesis.prices import dollars, worst_tokens
from polar_pipeline.synthesis.request import Reply, Request
from polar_pipeline.task.profile import SynthesisSettings

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class Attempt(NamedTuple):
    """How one call ended: with a reply, or with a failure, and whether that is worth another try."""

    reply: Reply | None
    failure: str = ""
    again: bool = True
    wait: float = 0.0  # seconds that the endpoint asked for
    charged: bool = False  # whether the endpoint may have worked on it, and so may charge for it


class Client:
    """Calls one endpoint. The key comes from OPENAI_API_KEY, the address from the profile or OPENAI_BASE_URL."""

    def __init__(self, settings: SynthesisSettings, pace: Pace) -> None:
        self._settings, self._pace = settings, pace
        self._sdk = _sdk(settings)

    async def close(self) -> None:
        """Let the connections go."""
        await self._sdk.close()

    async def call(self, request: Request) -> Attempt:
        """Send it once. Raises InputError for a key or a model that every call would fail with."""
        import openai

        try:
            response = await self._sdk.chat.completions.with_raw_response.create(**_body(request))
            text = response.text
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise InputError(_hopeless(error.status_code, self._settings)) from None
        except openai.APIStatusError as error:
            status = error.status_code
            wait = self._pace.heed(error.response.headers, refused=status == 429)
            return Attempt(None, f"status {status}", status in (408, 409, 429) or status >= 500, wait)
        except openai.APITimeoutError:
            return Attempt(None, "no answer in time", charged=True)
        except openai.APIConnectionError:
            return Attempt(None, "no connection, or it broke", charged=True)
        self._pace.heed(response.headers, refused=False)
        return Attempt(read_reply(request, text, self._settings))


def read_reply(request: Request, body: str, settings: SynthesisSettings) -> Reply:
    """What a response with status 200 says, whatever it is: never raises, because it may have been paid for."""
    try:
        content = json.loads(body)
        choice = content["choices"][0]
        message, finish = choice["message"], str(choice.get("finish_reason"))
    except (ValueError, KeyError, IndexError, TypeError):
        content, message, finish = {}, {}, "unreadable"
    prompt, completion, counted = _usage(content, request)
    texts, outcome = _texts(message, finish, len(request.labels))
    return Reply(
        key=request.key,
        texts=texts,
        outcome=outcome,
        finish=finish,
        prompt_tokens=prompt,
        completion_tokens=completion,
        dollars=dollars(prompt, completion, settings),
        counted=counted,
    )


def _texts(message: Any, finish: str, wanted: int) -> tuple[tuple[str, ...], str]:
    if not isinstance(message, dict):
        return (), "malformed"
    if message.get("refusal") or finish == "content_filter":
        return (), "refused"
    if finish == "length":
        return (), "truncated"
    try:
        posts = json.loads(message["content"])["posts"]
    except (ValueError, KeyError, TypeError):
        return (), "malformed"
    if not isinstance(posts, list) or len(posts) != wanted or not all(isinstance(post, str) for post in posts):
        return (), "malformed"
    return tuple(posts), "ok"


def _usage(content: Any, request: Request) -> tuple[int, int, bool]:
    """Tokens as the endpoint counted them; where it did not, the most that they can have been."""
    usage = content.get("usage") if isinstance(content, dict) else None
    if isinstance(usage, dict):
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if isinstance(prompt, int) and isinstance(completion, int) and prompt >= 0 and completion >= 0:
            return prompt, completion, True
    return *worst_tokens(request), False


def _body(request: Request) -> dict[str, Any]:
    size = len(request.labels)
    posts = {"type": "array", "items": {"type": "string"}, "minItems": size, "maxItems": size}
    schema = {"type": "object", "properties": {"posts": posts}, "required": ["posts"], "additionalProperties": False}
    return {
        "model": request.model,
        "messages": [message.model_dump() for message in request.messages],
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "posts", "strict": True, "schema": schema},
        },
    }


def _sdk(settings: SynthesisSettings) -> "AsyncOpenAI":
    import openai

    key = os.environ.get("OPENAI_API_KEY", "")
    if not key:
        raise InputError(
            "OPENAI_API_KEY is not set: export the endpoint's key (any word for a local server without one)."
        )
    return openai.AsyncOpenAI(
        api_key=key,
        base_url=settings.base_url or None,  # None: OPENAI_BASE_URL, else OpenAI's own
        max_retries=0,  # the rules are ours
        timeout=settings.timeout,
    )


def _hopeless(status: int, settings: SynthesisSettings) -> str:
    """One sentence without the endpoint's own words, which may repeat the key."""
    if status == 404:
        return f"the endpoint has no model {settings.model!r} (or no chat completions): correct synthesis.model or base_url."
    return f"the endpoint refused the key (status {status}): set OPENAI_API_KEY to one that may use {settings.model!r}."
