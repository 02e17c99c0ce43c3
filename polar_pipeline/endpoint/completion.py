"""A chat completion as it came: the model's message, why it ended, its tokens, or an error in its place.

Gateways send the same thing as JSON, as a stream of events nobody asked for, wrapped once more, or in their own words.
"""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

PARSE_ERRORS = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError)
_CUT = ("length", "max_tokens", "max_length", "model_length")  # reasons to end, of an answer that was cut off
_FILTERED = ("content_filter", "safety", "prohibited_content", "refusal")
_WRAPPERS = ("data", "result")  # fields in which some gateways put the whole answer
_ERROR_FIELDS = ("error", "errors", "detail", "message")
_THOUGHTS = ("thinking", "reasoning")  # types of parts that are no answer
_MAX_TOKENS = 10**9  # of one answer; a larger count is not believed


class ModelOutput(NamedTuple):
    """What an answer holds: the model's text, why it ended, whether it refused, and the whole answer."""

    text: str
    finish: str
    refused: bool
    whole: dict[str, Any]
    thought: bool = False  # the text is what the model thought, because it said nothing

    @property
    def cut(self) -> bool:
        """Whether it was cut off at its token limit."""
        return self.finish.casefold() in _CUT


def model_output(body: str) -> ModelOutput:
    """The message in an answer's body. Never raises; a body that is no answer says nothing."""
    whole = completion_in(body)
    message, finish = _message(whole)
    if message is None:
        return ModelOutput("", "unreadable", False, whole)
    finish = finish if isinstance(finish, str) and is_utf8(finish) else "none"
    refused = bool(message.get("refusal")) or finish.casefold() in _FILTERED
    text, thoughts = _text_of(message), message.get("reasoning_content") or message.get("reasoning")
    if not text and isinstance(thoughts, str):
        return ModelOutput(thoughts, finish, refused, whole, thought=True)
    return ModelOutput(text, finish, refused, whole)


def completion_in(body: str) -> dict[str, Any]:
    """The completion in a body: JSON, after comments too, or a stream put together; empty for anything else."""
    body = body.removeprefix("\ufeff")
    whole = json_or_none(body)
    if whole is None:
        lines = [line for line in body.split("\n") if not line.startswith(":")]  # comments of streams keep it alive
        whole = json_or_none("\n".join(lines)) or _from_stream(lines)
    if isinstance(whole, list):
        whole = next((one for one in whole if isinstance(one, dict)), None)
    if not isinstance(whole, dict):
        return {}
    inner = next((whole[name] for name in _WRAPPERS if isinstance(whole.get(name), dict)), None)
    return inner if inner and "choices" not in whole else whole


def error_in(whole: Mapping[str, Any]) -> Any:
    """What a completion without a message says went wrong, or None; a completion that charges for itself is none."""
    message, _ = _message(whole)
    if message and (_text_of(message) or message.get("refusal")):
        return None
    choices = whole.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    if error := whole.get("error") or first.get("error"):
        return error
    if message is None and (tokens_in(whole) is None or tokens_in(whole) == (0, 0)):
        said = {name: whole[name] for name in (*_ERROR_FIELDS, "code", "status", "type") if whole.get(name)}
        if any(name in said for name in _ERROR_FIELDS):
            return said
        return "an answer without choices" if "choices" in whole else None
    return None


def tokens_in(whole: Mapping[str, Any]) -> tuple[int, int] | None:
    """Prompt and completion tokens as a completion counts them, None if it does not.

    What its total has beyond both is thoughts, which are billed as completion. A total alone is all completion.
    """
    usage = whole.get("usage")
    if not isinstance(usage, dict):
        others = whole.get("x_groq")
        usage = others.get("usage") if isinstance(others, dict) else None
    usage = usage if isinstance(usage, dict) else whole
    prompt = token_count(usage, "prompt_tokens", "input_tokens", "prompt_eval_count")
    completion = token_count(usage, "completion_tokens", "output_tokens", "eval_count")
    total = token_count(usage, "total_tokens")
    if total is not None and total >= (prompt or 0) + (completion or 0):
        if prompt is None and completion is not None:
            return total - completion, completion
        return prompt or 0, total - (prompt or 0)
    return None if prompt is None or completion is None else (prompt, completion)


def token_count(usage: Mapping[str, Any], *names: str) -> int | None:
    """The number of tokens in the first of these fields that has one; `"100"` and `100.0` are numbers too."""
    for name in names:
        value = usage.get(name)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_TOKENS:
            return value
    return None


def is_utf8(text: str) -> bool:
    """JSON may escape half a character (a lone surrogate), which no file can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def json_or_none(text: str) -> Any:
    """A text as JSON, in which strings may have raw line breaks; None for any other text."""
    try:
        return json.loads(text, strict=False)
    except PARSE_ERRORS:
        return None


def _message(whole: Mapping[str, Any]) -> tuple[dict[str, Any] | None, Any]:
    """The message of a completion, as OpenAI, Ollama, Anthropic or Cloudflare name it, and why it ended."""
    try:
        choice = whole["choices"][0]
        message = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
        return message if isinstance(message, dict) else None, choice.get("finish_reason")
    except PARSE_ERRORS:
        pass
    finish = whole.get("done_reason") or whole.get("stop_reason")
    if isinstance(whole.get("message"), dict):
        return whole["message"], finish
    content = whole.get("content") if isinstance(whole.get("content"), list) else whole.get("response")
    return ({"content": content} if isinstance(content, list | str) else None), finish


def _text_of(message: Mapping[str, Any]) -> str:
    """The content of a message: a text, parts of one, or the arguments of a call."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [
            part.get("text") if isinstance(part, dict) and part.get("type") not in _THOUGHTS else part
            for part in content
        ]
        content = "".join(part for part in parts if isinstance(part, str))
    if isinstance(content, str) and content.strip():
        return content
    content = content if isinstance(content, dict) else message.get("parsed")
    try:
        calls = message.get("tool_calls")
        content = content or (calls[0]["function"] if calls else message["function_call"])["arguments"]
    except PARSE_ERRORS:
        pass
    if isinstance(content, dict):
        return json.dumps(content, ensure_ascii=False)
    return content if isinstance(content, str) else ""


def _from_stream(lines: list[str]) -> dict[str, Any] | None:
    """A completion that came as events, or as a JSON object a line, put together; None if there is none."""
    events = [json_or_none(line.removeprefix("data:").strip()) for line in lines if line.startswith(("data:", "{"))]
    found = [one for one in events if isinstance(one, dict)]
    text, finish, usage = "", None, None
    for one in found:
        usage = one.get("usage") or usage
        if one.get("error") or one.get("object") == "error":
            return {"error": one.get("error") or one, "usage": usage}
        for choice in one.get("choices") or [] if isinstance(one.get("choices"), list) else []:
            if not isinstance(choice, dict) or choice.get("index"):  # another choice than the first
                continue
            said = choice.get("delta") or choice.get("message")
            if isinstance(said, dict):  # a piece may be a single blank
                content = said.get("content")
                text += content if content and isinstance(content, str) else _text_of(said)
            finish = choice.get("finish_reason") or finish
    whole = found[-1] if found else {}
    return (
        {**whole, "choices": [{"message": {"content": text}, "finish_reason": finish}], "usage": usage}
        if found
        else None
    )
