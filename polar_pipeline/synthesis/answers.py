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
TEXT_KEYS = ("text", "post", "content", "tweet", "message", "body")
_LABEL_KEYS = ("label", "class", "category")
_PLACE_KEYS = ("number", "index", "id", "no")

_PARSE_ERRORS = (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError)
_THOUGHTS = ("think", "thinking", "reasoning", "thought")
_FENCE = re.compile(r"```[\w+-]*(.*?)```", re.DOTALL)
_NUMBERED = re.compile(r"(\d{1,3})[.):][ \t]+(\S.*)")
_FEWEST_NUMBERED = 3  # lines of a numbered list: two may be a refusal
_LIST_BEGINS = re.compile(r'(```\w*\s*)?(\{\s*"posts"\s*:\s*)?\[')
_ONE_NUMBER = re.compile(r"\D*(\d{1,3})\D*")
_STRINGS = json.JSONDecoder(strict=False)
_LONGEST = 1 << 16  # characters of an answer that is read in other ways than as JSON


class Said(NamedTuple):
    """What an answer holds: the model's text, why it ended, whether it refused, and the whole answer."""

    text: str
    finish: str
    refused: bool
    whole: dict[str, Any]
    thought: bool = False  # the text is what the model thought, because it said nothing


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
    finish = finish if isinstance(finish, str) and is_utf8(finish) else "none"
    text = _text_of(message)
    thoughts = message.get("reasoning_content") or message.get("reasoning")
    if not text and isinstance(thoughts, str):
        return Said(thoughts, finish, refused, whole, thought=True)
    return Said(text, finish, refused, whole)


def read_texts(said: Said, labels: Sequence[int], shiftable: bool, key: str = "text") -> Read:
    """The texts of an answer for posts with these labels; of objects, the field `key` where they have it.

    `shiftable`: posts stand for themselves, so that one too few or too many leaves those that keep their label
    wherever the gap is. Otherwise there are exactly as many as labels, or none.
    """
    if said.refused:
        return Read((), REFUSED)
    if said.finish == "length":
        whole = _complete_strings(said.text) if shiftable and not said.thought else []
        kept: list[str | None] = list(whole[: len(labels)])
        return Read((*kept, *[None] * (len(labels) - len(kept))), OK) if kept else Read((), TRUNCATED)
    for value, sure in _values(said):
        try:
            found = _texts_in(value, labels, key)
        except _PARSE_ERRORS:  # such as a number of thousands of digits
            continue
        if found is None or not all(is_utf8(text) for text in found):
            continue
        if len(found) == len(labels):
            return Read(tuple(found), OK)
        if shiftable and sure and any(aligned := _aligned(found, labels)):
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
    """The content of a message: a text, parts of one, or the arguments of a call."""
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
        return ""


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


def _values(said: Said) -> Iterator[tuple[Any, bool]]:
    """What JSON a text may hold, and whether nothing was mended; the surest reading first.

    As it is, in a fence, between prose; then mended, or as a numbered list. Of thoughts only an object with `posts`.
    """
    text = said.text.replace("\ufeff", "").strip()
    if (value := json_or_none(text)) is not None:
        yield value, True
        return
    plain = _without_thoughts(text[:_LONGEST]) if len(text) <= _LONGEST else ""
    fenced = [piece.strip() for piece in _FENCE.findall(plain)]
    for piece in dict.fromkeys([plain, *reversed(fenced), *_between_brackets(plain)]):
        value = json_or_none(piece)
        if value is not None and (not said.thought or (isinstance(value, dict) and "posts" in value)):
            yield value, True
    if said.thought:
        return
    from json_repair import repair_json

    for piece in [plain, *reversed(fenced)]:
        if not _may_be_mended(piece):
            continue
        for reader in (ast.literal_eval, lambda text: repair_json(text, return_objects=True)):
            try:
                yield reader(piece), False
            except (*_PARSE_ERRORS, SyntaxError, MemoryError):
                continue
    lines = [found for line in plain.splitlines() if (found := _NUMBERED.fullmatch(line.strip()))]
    if len(lines) >= _FEWEST_NUMBERED and [int(found[1]) for found in lines] == list(range(1, len(lines) + 1)):
        yield [found[2] for found in lines], False


def _without_thoughts(text: str) -> str:
    """A text without what stands between <think> and </think>, or before a </think> that nothing opens."""
    for name in _THOUGHTS:
        end = text.lower().rfind(f"</{name}>")
        if end >= 0:
            text = text[end + len(name) + 3 :]
    return text.strip()


def _may_be_mended(piece: str) -> bool:
    """Whether a piece is JSON but for slips: whole from bracket to bracket, with as many opening as closing quotes."""
    begins = re.match(r"[\[{]\s*[\"'{\[]", piece)
    return bool(begins) and piece[:1] + piece[-1:] in ("{}", "[]") and piece.count('"') % 2 == 0


def _between_brackets(text: str) -> list[str]:
    """What stands between the first opening and the last closing bracket, of either kind, the outer one first."""
    found = []
    for opening, closing in ("{}", "[]"):
        start, end = text.find(opening), text.rfind(closing)
        if 0 <= start < end:
            found.append((start, text[start : end + 1]))
    return [piece for _, piece in sorted(found)]


def _texts_in(value: Any, labels: Sequence[int], key: str) -> list[str] | None:
    """The texts of a JSON value: under `posts`, in the only list, in a bare list, or in numbered fields; else None."""
    if isinstance(value, dict):
        lists = [one for one in value.values() if isinstance(one, list)]
        if isinstance(value.get("posts"), list | dict):
            return _texts_in(value["posts"], labels, key)
        if len(lists) == 1:
            return _texts_in(lists[0], labels, key)
        if len(labels) == 1 and len(value) == 1 and set(value) & {key, "posts", *TEXT_KEYS}:
            return _texts_in(list(value.values()), labels, key)
        numbers = [int(found[1]) for name in value if (found := _ONE_NUMBER.fullmatch(name))]
        if len(numbers) == len(value) == len(labels) and sorted(numbers) in _countings(len(numbers)):
            ordered = [one for _, one in sorted(zip(numbers, value.values(), strict=True), key=lambda pair: pair[0])]
            return _texts_in(ordered, labels, key)
        return None
    if not isinstance(value, list) or not value or not _in_order(value, labels, key):
        return None
    texts = [_text_in(one, key) for one in value]
    return None if any(text is None for text in texts) else [text for text in texts if text is not None]


def _countings(count: int) -> list[list[int]]:
    return [list(range(count)), list(range(1, count + 1))]


def _in_order(items: list[Any], labels: Sequence[int], key: str) -> bool:
    """Whether objects say nothing against their places: their numbers count up, their labels are those asked for."""
    objects = [one for one in items if isinstance(one, dict)]
    for name in _PLACE_KEYS:
        numbers = [one[name] for one in objects if isinstance(one.get(name), int)]
        if len(numbers) > 1 and numbers not in (*_countings(len(numbers)), sorted(set(numbers))):
            return False
    for name in _LABEL_KEYS:
        given = [str(one[name]).casefold() for one in objects if name in one and name != key]
        pairs = set(zip(given, labels, strict=False))
        # each word stands for one label; 0 and 1 for themselves
        if given and (len(given) != len(labels) or len({word for word, _ in pairs}) != len(set(labels))):
            return False
        if any(word in ("0", "1") and int(word) != label for word, label in pairs) or len(pairs) > len(set(labels)):
            return False
    return True


def _text_in(value: Any, key: str) -> str | None:
    """A text, a number as text, or the text of an object."""
    if isinstance(value, dict):
        if key in value:
            return _text_in(value[key], key) if not isinstance(value[key], dict) else None
        known = [value[name] for name in TEXT_KEYS if isinstance(value.get(name), str)]
        strings = [one for one in value.values() if isinstance(one, str)]
        return known[0] if known else strings[0] if len(strings) == 1 else None
    if isinstance(value, int | float) and not isinstance(value, bool):
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
    """The whole strings at the beginning of a list of posts that was cut off; nothing of other answers."""
    text = text.replace("\ufeff", "").strip()
    begins = _LIST_BEGINS.match(text)
    found, place = list[str](), begins.end() if begins else len(text)
    while (place := _after_blanks(text, place)) < len(text) and text[place] == '"':
        try:
            one, place = _STRINGS.raw_decode(text, place)
        except ValueError:
            break
        place = _after_blanks(text, place)
        if place >= len(text) or text[place] not in ",]" or not is_utf8(one):
            break
        found.append(one)
        place += 1
    return found


def _after_blanks(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n":
        place += 1
    return place
