"""Reading: what a response with status 200 says. It has been paid for, so nothing in it may raise: what cannot be read is malformed."""

import json
from typing import Any, TypeGuard

from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.prices import dollars, worst_tokens
from polar_pipeline.synthesis.request import Reply, Request

_MOST_TOKENS = 10**9  # of one answer; a count above it is no count
_MALFORMED = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError)


def read_reply(request: Request, body: str, settings: SynthesisSettings) -> Reply:
    """What came back, whatever it is."""
    content, message, finish = _parts(body)
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


def _parts(body: str) -> tuple[Any, Any, str]:
    """The whole, its first message and its finish_reason; a body without a message may still say what it cost."""
    try:
        content = json.loads(body)
    except _MALFORMED:
        return {}, {}, "unreadable"
    try:
        choice = content["choices"][0]
        finish = choice.get("finish_reason")
        return content, choice["message"], finish if isinstance(finish, str) and _writable(finish) else "none"
    except _MALFORMED:
        return content, {}, "unreadable"


def _texts(message: Any, finish: str, wanted: int) -> tuple[tuple[str, ...], str]:
    if not isinstance(message, dict):
        return (), "malformed"
    if message.get("refusal") or finish == "content_filter":
        return (), "refused"
    if finish == "length":
        return (), "truncated"
    try:
        posts = json.loads(message["content"])["posts"]
    except _MALFORMED:
        return (), "malformed"
    if not isinstance(posts, list) or len(posts) != wanted:
        return (), "malformed"
    if not all(isinstance(post, str) and _writable(post) for post in posts):
        return (), "malformed"
    return tuple(posts), "ok"


def _writable(text: str) -> bool:
    """JSON may escape half a character (a lone surrogate), which no file can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _usage(content: Any, request: Request) -> tuple[int, int, bool]:
    """Tokens as the endpoint counted them; where it did not, the most that they can have been."""
    usage = content.get("usage") if isinstance(content, dict) else None
    if isinstance(usage, dict):
        prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if _count(prompt) and _count(completion):
            return prompt, completion, True
    return *worst_tokens(request), False


def _count(tokens: Any) -> TypeGuard[int]:
    return isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens <= _MOST_TOKENS
