"""Cleaning: what models wrap around a post is taken off, and nothing that people write is."""

import unicodedata

import regex

_CONTROL = regex.compile(r"(?V1)[\p{Cc}--[\t\n\r]]")
_TAGS = regex.compile(r"</?(?:p|br|b|i|em|strong|div|span|post|ul|li|code|pre|h[1-6])\b[^<>]*>", regex.IGNORECASE)
_EMPHASIS = regex.compile(r"(\*\*|__)(?=\S)(.+?)(?<=\S)\1", regex.DOTALL)
_FENCE = regex.compile(r"^```\w*\n|\n```$")
_NUMBER = regex.compile(r"^\s*(?:\(?\d{1,2}[.):]|[-*\u2022])\s+")
_NAMED = regex.compile(r"^\s*(?:post|text|rewritten|rewrite|output|answer)\s*\d*\s*:\s*", regex.IGNORECASE)
_QUOTES = ('""', "''", "\u201c\u201d", "\u201e\u201c", "\u201e\u201d", "\u00ab\u00bb", "\u2018\u2019", "\u300c\u300d")


def clean(text: str) -> str:
    """NFC, without control characters, markup, list numbers, names of the field, and quotation marks around the whole."""
    text = _CONTROL.sub("", unicodedata.normalize("NFC", text)).replace("\r\n", "\n").strip()
    text = _EMPHASIS.sub(r"\2", _TAGS.sub("", _FENCE.sub("", text)))
    before = None
    while before != text:  # wrappers stand inside each other
        before = text
        text = _unquoted(_NAMED.sub("", _NUMBER.sub("", text)).strip())
    return text


def has_markup(text: str) -> bool:
    """Whether tags are left that cleaning does not know: the text is a page or code, not a post."""
    return regex.search(r"</\w+>|<\w+ [\w-]+=|\{\"|\]\(http", text) is not None


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
