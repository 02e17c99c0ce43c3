"""What real gateways and local servers do with a request that is right: refuse a part of it, or wrap the answer."""

import json
from collections.abc import Callable
from typing import Any

PAGE = "<!DOCTYPE html><html><head><title>Welcome to nginx!</title></head><body>It works.</body></html>"


def refusal(fate: str, body: dict[str, Any]) -> tuple[int, str] | None:
    """The status and words with which a server that takes less refuses this body; None if it takes it."""
    wanted = body.get("response_format") or {}
    schema = json.dumps(wanted.get("json_schema", {}))
    limit, large = (
        body.get("max_tokens", 0),
        "maximum context length is 1024 tokens. However, you requested 1500 tokens.",
    )
    refusals: dict[str, tuple[bool, int, str]] = {
        "no_sizes": ("minItems" in schema, 400, "Invalid schema for response_format: 'minItems' is not permitted."),
        "no_schema": (schema != "{}", 400, "response_format type 'json_schema' is not supported"),
        "object_only": (schema != "{}", 422, "'response_format.type' must be 'json_object' or 'text'"),
        "schema_500": (schema != "{}", 500, "failed to parse grammar from json_schema"),
        "no_format": (bool(wanted), 400, "Unrecognized request argument supplied: response_format"),
        "completion_tokens": ("max_tokens" in body, 400, "Unsupported parameter: 'max_tokens' is not supported with "
                              "this model. Use 'max_completion_tokens' instead."),
        "both_limits": (True, 400, "Setting 'max_tokens' and 'max_completion_tokens' at once is not supported."),
        "context_later": (True, 400, "This prompt exceeds the maximum context length: 'the temperature'."),
        "busy_later": (True, 503, "model m7 is not available right now, please retry; schema backend restarting"),
        "no_temperature": ("temperature" in body, 400, "Unsupported value: 'temperature' does not support 1.0 with "
                           "this model. Only the default value is supported."),
        "short_context": (limit > 400, 400, f"This model's {large} Please reduce the length of the messages."),
        "small_limit": (limit > 400, 400, "max_tokens is too large: 4000. This model supports at most 400 tokens."),
        "everything": (bool({"max_tokens", "temperature"} & set(body) or wanted), 400,
                       "response_format is not supported" if wanted else "max_tokens is not supported, use "
                       "max_completion_tokens" if "max_tokens" in body else "temperature is not supported"),
    }  # fmt: skip
    applies, status, words = refusals.get(fate, (False, 0, ""))
    return (status, words) if applies else None


def error_in_200(fate: str) -> dict[str, Any] | str | None:
    """What a gateway puts into an answer with status 200 in place of a message."""
    errors: dict[str, dict[str, Any] | str] = {
        "inside_429": {"error": {"code": 429, "message": "Rate limit exceeded: slow down"}},
        "inside_500": {"error": {"code": 502, "message": "Upstream provider failed"}},
        "inside_choice": {"choices": [{"index": 0, "message": None, "finish_reason": "error",
                                       "error": {"code": 502, "message": "Provider returned error"}}]},
        "inside_quota": {"error": {"code": "insufficient_quota", "message": "You exceeded your current quota"}},
        "inside_billing": {"error": {"code": "billing_not_active", "message": "Your account is not active"}},
        "inside_key": {"error": {"code": "invalid_api_key", "message": "Incorrect API key provided"}},
        "inside_model": {"error": {"code": "model_not_found", "message": "The model does not exist"}},
        "inside_closed": {"error": {"code": "account_deactivated", "message": "This account was closed"}},
        "page": PAGE,
        "page_later": PAGE,
    }  # fmt: skip
    return errors.get(fate)


def _stream(posts: list[str]) -> str:
    content = json.dumps({"posts": posts})
    middle = len(content) // 2
    events: list[dict[str, Any]] = [
        {"choices": [{"delta": {"content": part}}]} for part in (content[:middle], content[middle:])
    ]
    events.append(
        {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 100, "completion_tokens": 50}}
    )
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


# how a message says the same posts
MESSAGES: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "fenced": lambda posts: {"content": f"```json\n{json.dumps({'posts': posts})}\n```"},
    "prose": lambda posts: {"content": f"Here they are:\n\n{json.dumps({'posts': posts})}\n\nMore {{if}} you like."},
    "think": lambda posts: {"content": f"<think>I need {{posts}}: [1, 2]...</think>\n{json.dumps({'posts': posts})}"},
    "think_open": lambda posts: {"content": f"I need posts [1, 2]</think>{json.dumps({'posts': posts})}"},
    "reasoning": lambda posts: {"content": "", "reasoning_content": json.dumps({"posts": posts})},
    "parts": lambda posts: {"content": [{"type": "text", "text": json.dumps({"posts": posts})}]},
    "bare": lambda posts: {"content": json.dumps(posts)},
    "objects": lambda posts: {"content": json.dumps({"posts": [{"id": "a", "text": post} for post in posts]})},
    "other_key": lambda posts: {"content": json.dumps({"count": len(posts), "texts": posts})},
    "keys": lambda posts: {"content": json.dumps({f"post_{at}": post for at, post in enumerate(posts, start=1)})},
    "bom": lambda posts: {"content": "\ufeff" + json.dumps({"posts": posts})},
    "commas": lambda posts: {"content": json.dumps({"posts": posts}).replace("]}", ",],}")},
    "newlines": lambda posts: {"content": json.dumps({"posts": posts}).replace("\\n", "\n").replace("post ", "post\n")},
    "single": lambda posts: {"content": str({"posts": posts})},
    "numbered": lambda posts: {"content": "\n".join(f"{at}. {post}" for at, post in enumerate(posts, start=1))},
    "few": lambda posts: {"content": json.dumps({"posts": posts[:-1]})},
    "many": lambda posts: {"content": json.dumps({"posts": [*posts, "one more post"]})},
    "call": lambda posts: {"content": None, "tool_calls": [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": json.dumps({"posts": posts})}}]},
}  # fmt: skip
WHOLE = [name for name in MESSAGES if name not in ("few", "many")]  # that have as many posts as were asked for
BODIES: dict[str, Callable[[list[str]], str]] = {"stream": _stream}
