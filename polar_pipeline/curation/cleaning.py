"""Cleaning: what models wrap around a post is taken off, and nothing that people write is. Cleaning twice is cleaning once."""

import unicodedata

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
_NAMED = regex.compile(r"^\s*(?:post|text|rewritten|rewrite|output|answer)\s*\d*\s*:\s*", regex.IGNORECASE)
_QUOTES = ('""', "''", "\u201c\u201d", "\u201e\u201c", "\u201e\u201d", "\u00ab\u00bb", "\u2018\u2019", "\u300c\u300d")


def clean(text: str) -> str:
    """NFC, without control characters, markup, names of the field, and quotation marks around the whole."""
    before = None
    while before != text:  # wrappers stand inside each other, and what one hid may be another
        before = text
        text = _CONTROL.sub("", unicodedata.normalize("NFC", text)).replace("\r\n", "\n").strip()
        text = _EMPHASIS.sub(r"\2", _TAGS.sub("", _FENCE.sub("", text)))
        text = _unquoted(_NAMED.sub("", text).strip())
    return text


def clean_replies(texts: list[str], replies: list[str]) -> list[str]:
    """Texts cleaned, and without list numbers or bullets where all texts of one reply have them, counting up.

    "1. Mai ist Feiertag" alone is a post. `replies` names the reply of each text, "" for none.
    """
    cleaned = [clean(text) for text in texts]
    together: dict[str, list[int]] = {}
    for place, reply in enumerate(replies):
        if reply:
            together.setdefault(reply, []).append(place)
    for places in together.values():
        while len(places) > 1 and _listed([cleaned[place] for place in places]):
            for place in places:
                cleaned[place] = clean(_NUMBER.sub("", cleaned[place]))
    return cleaned


def has_markup(text: str) -> bool:
    """Whether tags are left that cleaning does not know: the text is a page or code, not a post."""
    return regex.search(r"</\w+>|<\w+ [\w-]+=|\{\"|\]\(http", text) is not None


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
