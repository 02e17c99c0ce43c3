"""Label leakage: the label that a post was asked for, written beside it, which a classifier would learn to copy.

At the start before a colon or dash, alone or with a few words; after "label" or the like; in brackets, after a dash, an
arrow or as a hashtag at either end; or as a field of JSON. Label names are the task card's; for the bundled card also
their translations, in `label_leakage.yaml`.
"""

import functools
from importlib import resources
from typing import Any

import regex
import yaml

from polar_pipeline.corpus.text import UNSPACED, fold_case
from polar_pipeline.task.card import Label

ENGLISH = "eng"  # models fall back to English in every language
LETTER = r"[\p{L}\p{M}\p{N}]"
UNSPACED_LETTERS = "".join(rf"\p{{Script={name}}}" for name in UNSPACED)  # of scripts without spaces between words
_PART = 400  # characters at the start and at the end that are searched, so that long texts take no longer
_DASHES = r"[\u2013\u2014|\u2192\u21d2]|-+>|=+>|--"
_COLON = r"[:=\u1361\u1366\u17d6]"
_SEPARATOR = rf"(?:\s*(?:{_COLON}|{_DASHES}|\n)|\s+[-~>.]|[.\u0964\u06d4\u3002]\s)"
_OPEN, _CLOSE = r"[\"'*_\u00ab\u201c\u201e\u2018(\[{<]*", r"[\"'*_\u00bb\u201d\u2019)\]}>]*"
_STOP = r"[.!?\u0964\u06d4\u3002\u17d4\u104b\u1362]"
# 0 and 1 in the digits of the scripts; a score between them
_DIGITS = "".join(
    character
    for base in (0x30, 0x660, 0x6F0, 0x966, 0x9E6, 0xB66, 0xC66, 0x1040, 0x17E0)
    for character in map(chr, (base, base + 1))
)
_NUMBER = rf"(?:[01]?[.,]\d+|[{_DIGITS}])(?![\p{{N}}\p{{L}}%])(?!\s*[.,:/]\p{{N}})"
_NO_WORD = r"[^\p{L}\p{M}\p{N}.!?\u0964\u06d4\u3002]"
_WORDS = rf"(?:{LETTER}{{1,20}}{_NO_WORD}{{1,3}}){{0,3}}?[{UNSPACED_LETTERS}]{{0,10}}?"  # before a name


def label_leak(text: str, language: str, label: Label) -> str:
    """The part of a text that gives its label away, or ""."""
    if len(text) > 2 * _PART:
        text = f"{text[:_PART]} \u2026 {text[-_PART:]}"
    lines = [" ".join(line.split()) for line in _fold(text).split("\n")]
    content = "\n".join(line for line in lines if line)
    for pattern in _patterns(language, label.negative, label.positive):
        if found := pattern.search(content):
            return str(found[0]).strip()
    return ""


@functools.cache
def word_lists(stage: str) -> dict[str, dict[str, Any]]:
    """The word lists of a stage of curation, by language code (or script) and kind, from its YAML file."""
    lists: dict[str, dict[str, Any]] = yaml.safe_load(
        (resources.files("polar_pipeline.curation") / f"{stage}.yaml").read_text(encoding="utf-8")
    )
    return lists


def word_pattern(phrase: str, whole: bool = True) -> str:
    """A pattern for a phrase as whole words, or as their beginning; anywhere in scripts without spaces."""
    before = rf"(?<!{LETTER})" if _has_word_boundary(phrase[0]) else ""
    after = rf"(?!{LETTER})" if whole and _has_word_boundary(phrase[-1]) else ""
    return f"{before}{regex.escape(phrase)}{after}"


def _has_word_boundary(character: str) -> bool:
    return bool(regex.match(LETTER, character)) and not regex.match(f"[{UNSPACED_LETTERS}]", character)


@functools.lru_cache(maxsize=256)
def _patterns(language: str, negative: str, positive: str) -> tuple[Any, ...]:
    lists = word_lists("label_leakage")
    here = [lists[code] for code in dict.fromkeys([ENGLISH, language]) if code in lists]
    names = [negative, positive, f"not {positive}", f"non {positive}", f"non-{positive}"]
    if _fold(positive) in lists[ENGLISH]["names"]:  # the lists translate the bundled card's labels only
        names += [name for found in here for name in found["names"]]
    name, kind, answer = (
        _any(words)
        for words in (
            names,
            [word for found in here for word in found["kind"]],
            [word for found in here for word in found["answers"]],
        )
    )
    # hashtags have neither spaces nor hyphens
    tag = _any([regex.sub(r"[\s-]", joint, found) for found in names for joint in ("", "_")])
    said = rf"{kind}(?:\s+\w+)?\s*{_CLOSE}\s*(?:{_COLON}|{_DASHES})\s*{_OPEN}(?:{name}|{answer}|{_NUMBER})"
    stated = rf"(?:(?:{kind}\W{{0,4}})?{name}|{kind}\W{{0,4}}{_NUMBER}|{said})"
    hashtag = rf"#(?:{tag})(?![\p{{L}}\p{{M}}\p{{N}}_])"
    parts = (
        rf"\A[\W_]{{0,9}}(?:{kind}\W{{0,4}})?{name}{_CLOSE}(?:\s*[(\[]?[01][)\]]?)?(?:\s+(?:post|text|tweet))?{_SEPARATOR}",
        rf"\A[\W_]{{0,9}}{_WORDS}{name}{_CLOSE}(?:[\s(\[-]{{1,2}}\w+[)\]]?|[{UNSPACED_LETTERS}]{{1,10}})?\s*(?:[:=|]|{_DASHES})",
        rf"\A[\W_]{{0,9}}{kind}\s*{_NUMBER}{_CLOSE}{_SEPARATOR}",
        rf"(?:\A|\n|{_STOP})[\W_]{{0,9}}(?:{said}|{kind}\s*{_OPEN}{name})",
        rf"(?:\A\W*|\n\s*)[(\[{{<*\u3010]+\s*{stated}\s*[)\]}}>*\u3011]",
        rf"[(\[{{<*\u3010]\s*{stated}\s*[)\]}}>*\u3011]+\W*\Z",
        rf"(?:\s-|{_DASHES})\s*{stated}\W*\Z",
        rf"(?:\n|{_STOP}\s)\s*{stated}\W*\Z",
        rf"\s{kind}(?:\s+\w+)?\s*{_COLON}\s*{_OPEN}(?:{name}|{_NUMBER})\W*\Z",
        rf"[\"'](?:{kind}|{name})[\"']\s*:",
        rf"\A\s*{hashtag}",
        rf"{hashtag}\W*\Z",
    )
    return tuple(regex.compile(part) for part in parts)


def _any(phrases: list[str]) -> str:
    """A pattern for any of the phrases, longest first; a phrase that ends in * may go on with letters."""
    parts = []
    for phrase in sorted({_fold(phrase) for phrase in phrases}, key=lambda phrase: (-len(phrase), phrase)):
        stem = phrase.removesuffix("*")
        parts.append(word_pattern(stem) if stem == phrase else word_pattern(stem, whole=False) + r"[\p{L}\p{M}]*")
    return f"(?:{'|'.join(parts)})"


def _fold(text: str) -> str:
    return fold_case(text).replace("\u2019", "'")
