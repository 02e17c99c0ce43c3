"""Reading an answer with status 200: what the model said, and the texts in it, as far as they are unambiguous.

Endpoints wrap the same JSON in many ways: code fences, prose, thoughts, parts, other keys. What is read here brings the
posts that were paid for; where labels could be shifted, nothing is read.
"""

import ast
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

OK, REFUSED, TRUNCATED, MALFORMED = "ok", "refused", "truncated", "malformed"
TEXT_KEYS = ("text", "post", "content", "tweet", "message", "body", "translation", "label")

_PARSE_ERRORS = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError)
_THOUGHTS = re.compile(r"<(think|thinking|reasoning|thought)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_THOUGHTS_END = re.compile(r"\A.*?</(think|thinking|reasoning|thought)>", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```[\w+-]*\s*\n?(.*?)```", re.DOTALL)
_NUMBERED = re.compile(r"^\s*(\d{1,3})[.):]\s+(\S.*?)\s*$", re.MULTILINE)
_LONGEST = 1 << 18  # characters of an answer that are mended; longer ones are read only if they are JSON as they are
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


class Said(NamedTuple):
    """What an answer holds: the model's text, why it ended, whether it refused, and the whole answer."""

    text: str
    finish: str
    refused: bool
    whole: dict[str, Any]


class Read(NamedTuple):
    """The texts of an answer in the order of the labels asked for, None where it has none for sure; and the outcome."""

    texts: tuple[str | None, ...]
    outcome: str


def what_was_said(body: str) -> Said:
    """The message in an answer's body. Never raises; a body that is no answer says nothing."""
    whole = json_or_none(body.removeprefix("\ufeff")) or _from_stream(body)
    if not isinstance(whole, dict):
        return Said("", "unreadable", False, {})
    try:
        choice = whole["choices"][0]
        finish = choice.get("finish_reason")
        message = choice.get("message") or choice.get("delta") or {"content": choice.get("text")}
    except _PARSE_ERRORS:
        message, finish = whole.get("message"), "none" if isinstance(whole.get("message"), dict) else "unreadable"
    if not isinstance(message, dict):
        return Said("", "unreadable", False, whole)
    refused = bool(message.get("refusal")) or finish == "content_filter"
    return Said(_text_of(message), finish if isinstance(finish, str) and is_utf8(finish) else "none", refused, whole)


def read_texts(said: Said, labels: Sequence[int], shiftable: bool) -> Read:
    """The texts of an answer for posts with these labels.

    `shiftable`: posts stand for themselves, so that one too few or too many leaves those that keep their label
    wherever the gap is. Otherwise there are exactly as many as labels, or none.
    """
    if said.refused:
        return Read((), REFUSED)
    cut = said.finish == "length"
    if cut:
        kept: list[str | None] = list(_complete_strings(said.text)[: len(labels)]) if shiftable else []
        return Read((*kept, *[None] * (len(labels) - len(kept))), OK) if kept else Read((), TRUNCATED)
    for value in _values(said.text):
        found = _texts_in(value, len(labels))
        if found is None or not all(is_utf8(text) for text in found):
            continue
        if len(found) == len(labels):
            return Read(tuple(found), OK)
        if shiftable and any(aligned := _aligned(found, labels)):
            return Read(tuple(aligned), OK)
    return Read((), MALFORMED)


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
    except _PARSE_ERRORS:
        return None


def _text_of(message: dict[str, Any]) -> str:
    """The content of a message: a text, parts of one, the arguments of a call, or thoughts if there is nothing else."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        content = "".join(part for part in parts if isinstance(part, str))
    if isinstance(content, dict):
        content = json.dumps(content, ensure_ascii=False)
    if isinstance(content, str) and content.strip():
        return content
    try:
        return str(message["tool_calls"][0]["function"]["arguments"])
    except _PARSE_ERRORS:
        pass
    thoughts = message.get("reasoning_content") or message.get("reasoning")
    return thoughts if isinstance(thoughts, str) else ""


def _from_stream(body: str) -> dict[str, Any] | None:
    """An answer that came as a stream of events although none was asked for, put together; None for other bodies."""
    events = [json_or_none(line[5:].strip()) for line in body.splitlines() if line.startswith("data:")]
    found = [one for one in events if isinstance(one, dict)]
    if not found:
        return None
    text, finish, usage = "", None, None
    for one in found:
        if one.get("error"):
            return one
        usage = one.get("usage") or usage
        for choice in one.get("choices") or [] if isinstance(one.get("choices"), list) else []:
            said = choice.get("delta") or choice.get("message") if isinstance(choice, dict) else None
            text += _text_of(said) if isinstance(said, dict) else ""
            finish = choice.get("finish_reason") or finish if isinstance(choice, dict) else finish
    return {"choices": [{"message": {"content": text}, "finish_reason": finish}], "usage": usage}


def _values(text: str) -> Iterator[Any]:
    """What JSON a text may hold, the surest reading first: as it is, in a fence, between prose, mended."""
    text = text.replace("\ufeff", "").strip()
    plain = _THOUGHTS_END.sub("", _THOUGHTS.sub("", text)).strip() or text
    fenced = [piece.strip() for piece in _FENCE.findall(plain)]
    pieces = list(dict.fromkeys([plain, *reversed(fenced), *_between_brackets(plain)]))
    for piece in pieces:
        if (value := json_or_none(piece)) is not None:
            yield value
    if len(plain) <= _LONGEST:
        from json_repair import repair_json

        for piece in pieces:
            # what was cut off is not mended: its last post would be half of one
            if piece[:1] + piece[-1:] in ("{}", "[]"):
                for reader in (ast.literal_eval, lambda text: repair_json(text, return_objects=True)):
                    try:
                        yield reader(piece)
                    except (*_PARSE_ERRORS, SyntaxError, MemoryError):
                        continue
    numbered = _NUMBERED.findall(plain)
    if len(numbered) > 1 and [int(number) for number, _ in numbered] == list(range(1, len(numbered) + 1)):
        yield [text for _, text in numbered]


def _between_brackets(text: str) -> list[str]:
    """What stands between the first opening and the last closing bracket, of either kind, the outer one first."""
    found = []
    for opening, closing in ("{}", "[]"):
        start, end = text.find(opening), text.rfind(closing)
        if 0 <= start < end:
            found.append((start, text[start : end + 1]))
    return [piece for _, piece in sorted(found)]


def _texts_in(value: Any, wanted: int) -> list[str] | None:
    """The texts of a JSON value: under `posts`, in the only list, in a bare list, or one field for each; else None."""
    if isinstance(value, dict):
        lists = [one for one in value.values() if isinstance(one, list)]
        if isinstance(value.get("posts"), list | dict):
            return _texts_in(value["posts"], wanted)
        if len(lists) == 1:
            return _texts_in(lists[0], wanted)
        if not lists and len(value) == wanted and (wanted > 1 or set(value) & {*TEXT_KEYS, "posts"}):
            return _texts_in(list(value.values()), wanted)
        return None
    if not isinstance(value, list) or not value:
        return None
    texts = [_text_in(one) for one in value]
    return None if any(text is None for text in texts) else [text for text in texts if text is not None]


def _text_in(value: Any) -> str | None:
    """A text, a number as text, or the text of an object."""
    if isinstance(value, dict):
        known = [value[key] for key in TEXT_KEYS[:-1] if isinstance(value.get(key), str)]
        strings = [one for one in value.values() if isinstance(one, str)]
        return known[0] if known else strings[0] if len(strings) == 1 else None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) else None


def _aligned(texts: list[str], labels: Sequence[int]) -> list[str | None]:
    """For each label the text that has it wherever texts are missing or too many; None for the others."""
    shift = len(labels) - len(texts)
    kept: list[str | None] = [None] * len(labels)
    for place, text in enumerate(texts):
        # with some missing, the text may be any of the next ones; with some too many, any of those before
        low, high = (place, place + shift) if shift > 0 else (place + shift, place)
        meant = {labels[at] for at in range(max(low, 0), min(high, len(labels) - 1) + 1)}
        if len(meant) == 1 and 0 <= place < len(labels) and labels[place] in meant:
            kept[place] = text
    return kept


def _complete_strings(text: str) -> list[str]:
    """The whole strings of a list that was cut off."""
    start = text.find("[")
    found = [json_or_none(one) for one in _STRINGS.findall(text[start:])] if start >= 0 else []
    # objects would give their keys as strings
    plain = not re.match(r"\[\s*\{", text[start:]) if start >= 0 else False
    return [one for one in found if isinstance(one, str) and is_utf8(one)] if plain else []
