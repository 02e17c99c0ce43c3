"""Cleaning: what models wrap around a post is taken off, and nothing that people write is. Cleaning twice is cleaning once."""

import unicodedata
from typing import Any

import regex

_CONTROL = regex.compile(r"(?V1)[\p{Cc}--[\t\n\r]]")
# a name that HTML has, and attributes with values: "a <b und c> d" is no tag
_ATTRIBUTE = r"""\s+[a-z][\w:-]*\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+)"""
_TAGS = regex.compile(
    rf"</?(?:p|br|b|i|em|strong|div|span|post|ul|li|code|pre|h[1-6])(?:{_ATTRIBUTE})*\s*/?>", regex.IGNORECASE
)
# around words, not inside them: asterisks also hide letters
_EMPHASIS = regex.compile(r"(?<![\w*])(\*\*|__)(?=[^\s*_])(.+?)(?<=[^\s*_])\1(?![\w*])", regex.DOTALL)
_FENCE = regex.compile(r"^```\w*\n|\n```$")
_NUMBER = regex.compile(r"^(?:\(?(\d{1,2})[.):]|[-*\u2022])\s+")
_FIELD = r"^\s*(?:post|text|tweet|rewritten|rewrite|output|answer|version|variant)"
_NUMBERED_FIELD = regex.compile(rf"{_FIELD}\s*\d+\s*:\s*", regex.IGNORECASE)
_NAMED = regex.compile(rf"{_FIELD}\s*:\s*", regex.IGNORECASE)
_QUOTES = ('""', "''", "\u201c\u201d", "\u201e\u201c", "\u201e\u201d", "\u00ab\u00bb", "\u2018\u2019", "\u300c\u300d")


def clean(text: str) -> str:
    """NFC, without control characters, markup, numbered names of the field ("Post 1:"), and quotation marks around the whole."""
    before = None
    while before != text:  # wrappers stand inside each other, and what one hid may be another
        before = text
        text = _CONTROL.sub("", unicodedata.normalize("NFC", text)).replace("\r\n", "\n").strip()
        text = _EMPHASIS.sub(r"\2", _TAGS.sub("", _FENCE.sub("", text)))
        text = _unquoted(_NUMBERED_FIELD.sub("", text).strip())
    return text


def clean_replies(texts: list[str], replies: list[str]) -> list[str]:
    """Texts cleaned, and without list numbers (counting up), bullets or names of the field where all texts of one reply have them.

    "1. Mai ist Feiertag" alone is a post, and so is "Answer: because they hate us". `replies` names the reply of each text, "" for none.
    """
    cleaned = [clean(text) for text in texts]
    together: dict[str, list[int]] = {}
    for place, reply in enumerate(replies):
        if reply:
            together.setdefault(reply, []).append(place)
    for places in together.values():
        while len(places) > 1 and (mark := _mark([cleaned[place] for place in places])):
            for place in places:
                cleaned[place] = clean(mark.sub("", cleaned[place]))
    return cleaned


def has_markup(text: str) -> bool:
    """Whether tags are left that cleaning does not know: the text is a page or code, not a post."""
    return regex.search(r"</\w+>|<\w+ [\w-]+=|\{\"|\]\(http", text) is not None


def _mark(texts: list[str]) -> Any:
    """What all the texts begin with that is not theirs, or nothing."""
    if _listed(texts):
        return _NUMBER
    return _NAMED if all(_NAMED.match(text) for text in texts) else None


def _listed(texts: list[str]) -> bool:
    found = [_NUMBER.match(text) for text in texts]
    if not all(found):
        return False
    numbers = [int(match[1]) if match and match[1] else None for match in found]
    first = numbers[0]
    if first is None:
        return not any(numbers)
    return numbers == list(range(first, first + len(numbers)))


def _unquoted(text: str) -> str:
    for pair in _QUOTES:
        opening, closing = pair[0], pair[1]
        inner = text[1:-1]
        if (
            len(text) > 1
            and text[0] == opening
            and text[-1] == closing
            and opening not in inner
            and closing not in inner
        ):
            return inner.strip()
    return text
