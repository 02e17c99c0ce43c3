"""The JSON values in what a model said: bare, fenced, between prose, after thoughts, mended where only one way is."""

import ast
import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

from polar_pipeline.endpoint.completion import PARSE_ERRORS, ModelOutput, is_utf8, json_or_none

NUMBERED = re.compile(r"(?:\*\*)?(?:[^\W\d_]{1,12} )?#?(\d{1,3})[.):](?:\*\*)?[ \t]+(\S.*)", re.DOTALL)

_THOUGHTS = re.compile(
    r"</\s*(?:[a-z]+:)?(?:think|thinking|thought|reasoning|analysis)\s*>|◁/think▷|\[/THINK\]|"
    r"<\|channel\|>final(?:<\|[a-z]+\|>| )*<\|message\|>",
    re.IGNORECASE,
)
_FENCE = re.compile(r"```[\w+-]{0,20}+(.*?)```", re.DOTALL)
_FEWEST_NUMBERED = 3  # lines of a numbered list: two may be a refusal
_CURLY = re.compile(r"(?<=[\[{,:\s])“|”(?=\s*[\]},:])")  # quotes where JSON has its own
_STRINGS = json.JSONDecoder(strict=False)
_LONGEST = 1 << 16  # characters of an answer that is read in other ways than as JSON
_LONGEST_MENDED = 6000  # characters in which slips are mended: the time grows with their cube
_MOST_VALUES = 200  # brackets in a text at which JSON is looked for
_LIST_BEGINS = re.compile(r'(```\w*\s*)?(\{\s*"posts"\s*:\s*)?\[')


def values_in(said: ModelOutput) -> Iterator[tuple[Any, bool]]:
    """What JSON a text may hold, and whether nothing was mended; the surest reading first.

    As it is; then the last value in it, all of them together, mended, or as a numbered list. Of thoughts only an
    object with `posts`.
    """
    text = said.text.replace("\ufeff", "").strip()
    if (value := json_or_none(text)) is not None:
        yield value, True
        return
    plain = without_thoughts(text) if len(text) <= _LONGEST else ""
    values = _json_in(plain)
    if said.thought:
        yield from ((value, True) for value in reversed(values) if isinstance(value, dict) and "posts" in value)
        return
    yield from ((value, True) for value in reversed(values))
    if len(values) > 1 and all(isinstance(value, dict) for value in values):
        listed = [value.get("posts") for value in values]
        whole = [one for part in listed for one in part] if all(isinstance(one, list) for one in listed) else values
        yield whole, False
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    strings = [json_or_none(line.removesuffix(",")) for line in lines]
    if len(lines) > 1 and all(isinstance(one, str) for one in strings):
        yield strings, False
    yield from ((value, False) for value in _mended(plain))
    if len(lines) >= _FEWEST_NUMBERED and all(NUMBERED.fullmatch(line) for line in lines):
        yield lines, False


def _json_in(text: str) -> list[Any]:
    """The lists and objects in a text, one after the other."""
    found, place = list[Any](), 0
    for _ in range(_MOST_VALUES):
        begin = re.compile(r"[\[{]").search(text, place)
        if begin is None:
            break
        place = begin.start()
        try:
            value, place = _STRINGS.raw_decode(text, place)
            found.append(value)
        except PARSE_ERRORS:
            place += 1
    return found


def _mended(plain: str) -> Iterator[Any]:
    """JSON whose slips can be mended in one way only."""
    for piece in dict.fromkeys([plain, *(piece.strip() for piece in reversed(_FENCE.findall(plain)))]):
        piece = _CURLY.sub('"', piece)
        if not _may_be_mended(piece):
            continue
        for reader, longest in ((_literal, _LONGEST), (_repaired, _LONGEST_MENDED)):
            if len(piece) <= longest:
                try:
                    yield reader(piece)
                except (*PARSE_ERRORS, SyntaxError, MemoryError):
                    continue


def _literal(piece: str) -> Any:
    with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
        return ast.literal_eval(piece)


def _repaired(piece: str) -> Any:
    from json_repair import repair_json

    return repair_json(piece, return_objects=True)


def without_thoughts(text: str) -> str:
    """A text without what stands before the last mark that ends thoughts."""
    ends = [found.end() for found in _THOUGHTS.finditer(text)]
    return text.replace("\ufeff", "")[ends[-1] if ends else 0 :].strip()


def _may_be_mended(piece: str) -> bool:
    """Whether a piece is JSON but for slips: whole from bracket to bracket, with as many opening as closing quotes."""
    begins = re.match(r"[\[{]\s*[\"'{\[\w]", piece)
    return bool(begins) and piece[:1] + piece[-1:] in ("{}", "[]") and piece.count('"') % 2 == 0


def complete_strings(text: str) -> list[str]:
    """The whole strings at the beginning of a list of posts that was cut off; nothing of other answers."""
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
