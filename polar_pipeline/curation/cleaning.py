"""Cleaning: removes what models wrap around a post, and nothing that people write. Cleaning twice is cleaning once."""

import unicodedata
from typing import Any

import regex

from polar_pipeline.corpus.text import CONTROL

# names that HTML has, and attributes with values: "a <b und c> d" is no tag
_ATTRIBUTE = r"""\s+[a-z][\w:-]*\s*=\s*(?:"[^"<>]*"|'[^'<>]*'|[^\s"'<>]+)"""
_TAGS = regex.compile(
    rf"</?(?:p|br|b|i|em|strong|div|span|post|ul|li|code|pre|h[1-6])(?:{_ATTRIBUTE})*\s*/?>", regex.IGNORECASE
)
# around words, not inside them, where asterisks hide letters; no further than the next mark, which keeps it linear
_EMPHASIS = regex.compile(r"(?<![\w*])(\*\*|__)(?=[^\s*_])((?:(?!\1).)+)(?<=[^\s*_])\1(?![\w*])", regex.DOTALL)
_FENCE = regex.compile(r"^```\w*\n|\n```$")
_LIST_MARK = regex.compile(r"^(?:\(?(\d{1,2})[.):]|[-*\u2022])\s+")
_FIELD = r"^\s*(?:post|text|tweet|rewritten|rewrite|output|answer|version|variant)"
_NUMBERED_FIELD = regex.compile(rf"{_FIELD}\s*\d+\s*:\s*", regex.IGNORECASE)
_FIELD_NAME = regex.compile(rf"{_FIELD}\s*:\s*", regex.IGNORECASE)
_QUOTES = ('""', "''", "\u201c\u201d", "\u201e\u201c", "\u201e\u201d", "\u00ab\u00bb", "\u2018\u2019", "\u300c\u300d")
_MARKUP_LEFT = regex.compile(r"</\w+>|<\w+ [\w-]+=|\{\"|\]\(http")


def clean(text: str) -> str:
    """NFC, without control characters, markup, numbered field names ("Post 1:") and quotation marks around it."""
    before = None
    while before != text:  # wrappers may stand inside each other
        before = text
        text = CONTROL.sub("", unicodedata.normalize("NFC", text)).replace("\r\n", "\n").strip()
        text = _EMPHASIS.sub(r"\2", _TAGS.sub("", _FENCE.sub("", text)))
        text = _unquote(_NUMBERED_FIELD.sub("", text).strip())
    return text


def clean_replies(texts: list[str], replies: list[str]) -> list[str]:
    """Clean texts, and remove list numbers, bullets or field names where all texts of one reply begin with them.

    "1. Mai ist Feiertag" alone is a post, and so is "Answer: because they hate us". `replies` names each text's reply,
    "" for none.
    """
    cleaned = [clean(text) for text in texts]
    by_reply: dict[str, list[int]] = {}
    for place, reply in enumerate(replies):
        if reply:
            by_reply.setdefault(reply, []).append(place)
    for places in by_reply.values():
        while len(places) > 1 and (prefix := _common_prefix([cleaned[place] for place in places])):
            for place in places:
                cleaned[place] = clean(prefix.sub("", cleaned[place]))
    return cleaned


def has_markup(text: str) -> bool:
    """Whether tags are left that cleaning does not know: the text is a page or code, not a post."""
    return _MARKUP_LEFT.search(text) is not None


def _common_prefix(texts: list[str]) -> Any:
    """The pattern of a list mark (bullets, or numbers counting up) or field name that all texts begin with, or None."""
    marks = [_LIST_MARK.match(text) for text in texts]
    if all(marks):
        numbers = [int(mark[1]) if mark and mark[1] else None for mark in marks]
        first = numbers[0]
        counting = not any(numbers) if first is None else numbers == list(range(first, first + len(numbers)))
        if counting:
            return _LIST_MARK
    return _FIELD_NAME if all(_FIELD_NAME.match(text) for text in texts) else None


def _unquote(text: str) -> str:
    for pair in _QUOTES:
        inner = text[1:-1]
        if len(text) > 1 and text[0] + text[-1] == pair and not set(pair) & set(inner):
            return inner.strip()
    return text
