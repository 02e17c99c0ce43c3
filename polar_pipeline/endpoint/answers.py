"""The texts in what a model said, as far as they are unambiguous.

Models wrap the same JSON in many ways: code fences, prose, thoughts, other keys. What is read here brings the posts
that were paid for. Where labels could be shifted, nothing is read. Placeholders are not posts.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from polar_pipeline.endpoint.completion import PARSE_ERRORS, ModelOutput, is_utf8, json_or_none
from polar_pipeline.endpoint.json_values import NUMBERED, complete_strings, values_in, without_thoughts

OK, REFUSED, TRUNCATED, MALFORMED = "ok", "refused", "truncated", "malformed"  # refused: also without a single post
TEXT_KEYS = ("text", "post", "content", "tweet", "message", "body")
_LABEL_KEYS = ("label", "class", "category")
_PLACE_KEYS = ("number", "index", "id", "no")
_NOT_POSTS = {"error", "errors", "refusal", "reason", "reasons", "topics", "labels", "notes"}  # names of other lists
_YES_NO = {"0": 0, "1": 1, "false": 0, "true": 1}
# texts that only show where a post is to stand, such as `text1`, `<your post here>` or `[Post 2]`
_PLACEHOLDER = re.compile(
    r"[\W_]*((a|an|the|your|my|new|sample|first|second|third|next|last|insert)[\W_]+){0,3}"
    r"(text|post|tweet|string|content|message|placeholder|example)[\W_]*([0-9]{1,2}|(goes )?here)?[\W_]*",
    re.IGNORECASE,
)
_OPEN = re.compile(
    r"[0-9<>\[\]{}\u2026]|\.\.\.|\b(here|your|insert|placeholder)\b", re.IGNORECASE
)  # what people do not write
_LONGEST_PLACEHOLDER = 80  # characters

_ONE_NUMBER = re.compile(r"\D*(\d{1,3})\D*")
_QUOTES = {'"': '"', "“": "”", "„": "“", "«": "»"}


class Read(NamedTuple):
    """The texts of an answer in the order of the labels asked for, None where it has none for sure; and the outcome."""

    texts: tuple[str | None, ...]
    outcome: str


class _Item(NamedTuple):
    """One text of an answer, None for what is none, with the label and the number that stand beside it."""

    text: str | None
    label: str = ""
    place: int | None = None


def read_texts(
    said: ModelOutput, labels: Sequence[int], shiftable: bool, key: str = "text", names: Sequence[str] = ("0", "1")
) -> Read:
    """The texts of an answer for posts with these labels; of objects, the field `key` where they have it.

    `shiftable`: posts stand for themselves, so that one too few or too many leaves those that keep their label
    wherever the gap is. Otherwise there are exactly as many as labels, or none. `names` are the words for 0 and 1.
    """
    if said.refused:
        return Read((), REFUSED)
    parts, whole_list, empty = list[list[str | None]](), False, False
    for value, sure in values_in(said):
        try:
            items = _items(value, len(labels), key, names)
            whole_list = whole_list or bool(items)
            found = items and _arranged(items, labels, shiftable and sure, names)
        except PARSE_ERRORS:  # such as a number of thousands of digits
            continue
        found = _distinct(found, labels) if found and key == "text" else found
        empty = empty or (bool(found) and len(items or ()) == len(labels) and key == "text" and not any(found or ()))
        if not found or not any(found) or (key != "text" and not all(found)):
            continue
        if items and len(items) == len(labels):
            return Read(tuple(found), OK)
        parts.append(found)
    if said.cut and shiftable and not said.thought and not whole_list:
        whole = [text if _is_post(text, names) else None for text in complete_strings(without_thoughts(said.text))]
        parts.append(_distinct((whole + [None] * len(labels))[: len(labels)], labels))
    if parts and any(parts[0]):
        return Read(tuple(parts[0]), OK)
    if empty and not said.cut:  # in the right form, so asking again would only cost as much once more
        return Read((), REFUSED)
    return Read((), TRUNCATED if said.cut else MALFORMED)


def _items(value: Any, count: int, key: str, names: Sequence[str]) -> list[_Item] | None:
    """The texts of a JSON value: under `posts`, by label, in numbered fields, in the only list; None if unclear."""
    if isinstance(value, str):
        inner = json_or_none(value)
        return _items(inner, count, key, names) if isinstance(inner, list | dict | str) else None
    if isinstance(value, dict):
        return _items_of_object(value, count, key, names)
    if not isinstance(value, list | tuple) or not value:
        return None
    if all(isinstance(one, list | tuple) for one in value):  # pairs, or each text in a list of its own
        value = [one for part in value for one in part]
    items = list[_Item]()
    for one in value:
        stated = {_word(name): text for name, text in one.items()} if isinstance(one, dict) else {}
        if set(stated) == {_word(name) for name in names} and key == "text":  # a pair
            items += [_Item(_text_in(stated[_word(name)], key), _word(name)) for name in reversed(names)]
        else:
            items.append(_Item(_text_in(one, key), _label_of(one, key, names), _place_of(one)))
    if key != "text":
        return items if all(item.text is not None for item in items) else None
    if any(item.text is None for item in items) and not all(isinstance(one, str | dict | None) for one in value):
        return None
    return [item._replace(text=item.text if _is_post(item.text, names) else None) for item in _unwrapped(items)]


def _items_of_object(value: dict[str, Any], count: int, key: str, names: Sequence[str]) -> list[_Item] | None:
    fields = {_word(name): one for name, one in value.items()}
    if isinstance(fields.get("posts"), list | dict | str):
        items = _items(fields["posts"], count, key, names)
        return _with_labels(items, fields.get("labels")) if items and key == "text" else items
    by_label = [fields.get(_word(name)) for name in names]
    if key == "text" and all(isinstance(part, list) for part in by_label):
        return [
            _Item(text if isinstance(text, str) and _is_post(text, names) else None, _word(name))
            for name, part in zip(names, by_label, strict=True)
            for text in part or []
        ]
    if key == "text" and set(fields) & (_NOT_POSTS - {"labels"}):
        return None
    lists = [name for name, one in fields.items() if isinstance(one, list) and (name != "labels" or key != "text")]
    if len(lists) == 1:
        items = _items(fields[lists[0]], count, key, names)
        return _with_labels(items, fields.get("labels")) if items and key == "text" else items
    if count == 1 and len(value) == 1 and set(value) & {key, "posts", *TEXT_KEYS}:
        return _items(list(value.values()), count, key, names)
    numbers = [int(found[1]) for name in value if (found := _ONE_NUMBER.fullmatch(name))]
    if len(numbers) == len(value) == count and _counts(numbers):
        ordered = [one for _, one in sorted(zip(numbers, value.values(), strict=True), key=lambda pair: pair[0])]
        return _items(ordered, count, key, names)
    inner = [one for one in value.values() if isinstance(one, dict)]
    return _items(inner[0], count, key, names) if len(inner) == 1 and not lists else None


def _with_labels(items: list[_Item], labels: Any) -> list[_Item]:
    """Items with the labels of a list beside theirs."""
    if not isinstance(labels, list) or len(labels) != len(items):
        return items
    return [item._replace(label=_word(label)) for item, label in zip(items, labels, strict=True)]


def _arranged(
    items: list[_Item], labels: Sequence[int], shiftable: bool, names: Sequence[str]
) -> list[str | None] | None:
    """For each label its text, None for those without one; None for all where the items contradict their places."""
    places = [item.place for item in items if item.place is not None]
    if len(places) == len(items) and _counts(places):
        items = sorted(items, key=lambda item: item.place or 0)
    elif len(places) > 1 and places != sorted(set(places)):
        return None
    meaning = _YES_NO | {_word(name): label for label, name in enumerate(names)}
    stated = [meaning.get(item.label) for item in items]
    if None not in stated and stated != list(labels):
        return _by_label(items, stated, labels) if shiftable else None
    if not _consistent([item.label for item in items], labels):
        return None
    texts = [item.text for item in items]
    if len(texts) == len(labels):
        return texts
    return _aligned(texts, labels) if shiftable else None


def _by_label(items: list[_Item], stated: list[int | None], labels: Sequence[int]) -> list[str | None]:
    """Texts that say their label, each in the next place that has it."""
    left = {label: [item.text for item, own in zip(items, stated, strict=True) if own == label] for label in (0, 1)}
    return [left[label].pop(0) if left[label] else None for label in labels]


def _consistent(words: list[str], labels: Sequence[int]) -> bool:
    """Whether words beside the texts, if there are any, can be names of their labels: one for each."""
    if not any(words):
        return True
    pairs = set(zip(words, labels, strict=False))
    one_each = len(pairs) == len({word for word, _ in pairs}) == len(set(labels))
    return len(words) == len(labels) and one_each and all(_YES_NO.get(word, label) == label for word, label in pairs)


def _counts(numbers: Iterable[int]) -> bool:
    """Whether numbers are those from 0 or 1 on, in any order."""
    ordered = sorted(numbers)
    return ordered in (list(range(len(ordered))), list(range(1, len(ordered) + 1)))


def _word(value: Any) -> str:
    return re.sub(r"[\s_-]+", " ", str(value).casefold()).strip()


def _label_of(value: Any, key: str, names: Sequence[str]) -> str:
    """What an object says of its own label."""
    if not isinstance(value, dict) or key != "text":
        return ""
    positive = next((one for name, one in value.items() if _word(name) == _word(names[1])), None)
    if isinstance(positive, bool):
        return _word(positive)
    return next((_word(value[name]) for name in _LABEL_KEYS if isinstance(value.get(name), str | int)), "")


def _place_of(value: Any) -> int | None:
    """The number that an object gives itself."""
    given = [value[name] for name in _PLACE_KEYS if name in value] if isinstance(value, dict) else []
    return int(given[0]) if given and re.fullmatch(r"[0-9]{1,6}", str(given[0])) else None


def _text_in(value: Any, key: str) -> str | None:
    """A text, the text of an object, also of one that is written as a string, or for a judge a number."""
    if isinstance(value, str):
        inner = json_or_none(value) if value.startswith("{") else None
        text = _text_in(inner, key) if isinstance(inner, dict) else value
        return text.replace("\0", "") if text is not None and is_utf8(text) else None
    if isinstance(value, dict):
        if key in value:
            return _text_in(value[key], key) if not isinstance(value[key], dict) else None
        known = [value[name] for name in TEXT_KEYS if isinstance(value.get(name), str)]
        strings = [one for name, one in value.items() if isinstance(one, str) and name not in _LABEL_KEYS + _PLACE_KEYS]
        return _text_in(known[0] if known else strings[0], key) if known or len(strings) == 1 else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if key == "probability" and is_number else None


def _unwrapped(items: list[_Item]) -> list[_Item]:
    """Items without numbers that count their texts, and without quotes around all of them."""
    if len(items) < 2:
        return items
    numbered = [NUMBERED.fullmatch(item.text or "") for item in items]
    if all(numbered) and _counts(int(found[1]) for found in numbered if found):
        items = [
            item._replace(text=found[2], place=int(found[1]))
            for item, found in zip(items, numbered, strict=True)
            if found
        ]
    texts = [item.text or "" for item in items]
    if all(len(text) > 1 and _QUOTES.get(text[0]) == text[-1] for text in texts):
        items = [item._replace(text=text[1:-1]) for item, text in zip(items, texts, strict=True)]
    return items


def _is_post(text: str | None, names: Sequence[str]) -> bool:
    """Whether a text can be a post: neither empty nor a mark for one (`...`, `<post 1>`), nor the name of a label."""
    if not text or _word(text) in {_word(name) for name in names}:
        return False
    if not re.search(r"[^\W\d_]", text):
        return any(unicodedata.category(character) == "So" for character in text)  # emoji
    return len(text) > _LONGEST_PLACEHOLDER or not (_PLACEHOLDER.fullmatch(text) and _OPEN.search(text))


def _distinct(texts: list[str | None], labels: Sequence[int]) -> list[str | None]:
    """Texts without those that are given for both labels, or for all posts: a refusal in place of each."""
    given = set(zip(texts, labels, strict=True))
    if len(texts) > 1 and len(set(texts)) == 1:
        return [None] * len(texts)
    return [None if (text, 1 - label) in given else text for text, label in zip(texts, labels, strict=True)]


def _aligned(texts: Sequence[str | None], labels: Sequence[int]) -> list[str | None]:
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
