"""What models say and posts do not: talk about themselves and the task, and refusals, per language.

Four signs: a phrase that is enough alone; "here is the post:" at the start, in whatever words; "cannot", "write" and "post" near
each other; a short text that starts with an apology, and "cannot" near it. Whole words, where the script has spaces: "as an ai" is not in "as an aide".
"""

import functools
import unicodedata
from importlib import resources
from typing import Any, NamedTuple

import regex
import yaml

from polar_pipeline.corpus.text import UNSPACED

EVERYWHERE = "eng"  # models fall back to English in whatever language they are asked to write
_LETTER = r"[\p{L}\p{M}\p{N}]"
_UNSPACED = "".join(rf"\p{{Script={name}}}" for name in UNSPACED)
_START = 120  # characters in which an introduction stands
_FIRST = 40  # characters in which an apology begins
_SHORT = 200  # characters of an answer that only declines
_NEAR = 90  # characters within which a refusal says all that it has to


class _Signs(NamedTuple):
    """Compiled: phrases, an introduction, the three parts of a refusal, and an apology."""

    says: Any
    opens: Any
    refuses: tuple[Any, Any, Any]
    sorry: Any


def flat(text: str) -> str:
    """A text as phrases are looked for in it: NFKC, case folded, one kind of apostrophe and space."""
    folded = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'").replace("\u02bc", "'")
    return " ".join(folded.split())


@functools.cache
def phrases(language: str) -> tuple[str, ...]:
    """The phrases that are enough alone in posts of a language, flat."""
    lists = _lists()
    found = [*lists[EVERYWHERE]["says"], *lists.get(language, {}).get("says", [])]
    return tuple(dict.fromkeys(flat(phrase) for phrase in found))


def found_phrase(text: str, language: str) -> str:
    """The first sign of a model's own words in a text, or nothing."""
    content = flat(text)
    for signs in _signs(language):
        if found := signs.says.search(content) or signs.opens.match(content[:_START]):
            return str(found[0])
        cannot, *others = signs.refuses
        sorry = signs.sorry.search(content[:_FIRST])
        for match in cannot.finditer(content):
            around = content[max(match.start() - _NEAR, 0) : match.end() + _NEAR]
            said = [bool(part.search(around)) for part in others]
            if all(said) or (sorry and match.start() < sorry.end() + _NEAR and len(content) < _SHORT):
                return str(match[0])
    return ""


@functools.cache
def _signs(language: str) -> tuple[_Signs, ...]:
    lists = _lists()
    return tuple(_compiled(lists[code]) for code in dict.fromkeys([EVERYWHERE, language]) if code in lists)


def _compiled(lists: dict[str, list[str]]) -> _Signs:
    here, post = _any(lists["here"]), _any(lists["post"])
    return _Signs(
        _any(lists["says"]),
        # at most a greeting before it, and a colon after it; which of both comes first is a matter of grammar
        regex.compile(
            rf"(?:\W*\w+\W+){{0,3}}?(?:{here.pattern}.{{0,60}}?{post.pattern}|{post.pattern}.{{0,60}}?{here.pattern})"
            r".{0,60}?[:\uff1a\u2014]"
        ),
        (_any(lists["cannot"]), _any(lists["make"], whole=False), _any(lists["post"])),
        _any(lists["sorry"]),
    )


def _any(found: list[str], *, whole: bool = True) -> Any:
    """Any of the phrases: as whole words, or as beginnings of words; anywhere in scripts without spaces."""
    parts = [bounded(flat(phrase), whole) for phrase in sorted(found, key=len, reverse=True)]
    return regex.compile(f"(?:{'|'.join(parts)})")


def bounded(phrase: str, whole: bool) -> str:
    """A pattern for the phrase where a word begins, and ends if `whole`."""
    before = rf"(?<!{_LETTER})" if _spaced(phrase[0]) else ""
    after = rf"(?!{_LETTER})" if whole and _spaced(phrase[-1]) else ""
    return f"{before}{regex.escape(phrase)}{after}"


def _spaced(character: str) -> bool:
    """Whether a letter next to this one belongs to the same word."""
    return bool(regex.match(_LETTER, character)) and not regex.match(f"[{_UNSPACED}]", character)


@functools.cache
def _lists() -> dict[str, dict[str, list[str]]]:
    text = (resources.files("polar_pipeline.curation") / "phrases.yaml").read_text(encoding="utf-8")
    read: dict[str, dict[str, list[str]]] = yaml.safe_load(text)
    return read
