"""Label leakage: the label that a post was asked for, told beside it, as a learner would copy it from the page.

At the start before a colon or a dash, after "label" or the like, in brackets or as a hashtag at either end. The names are the
task card's own, and for the card that ships with the package what they are in each language. What does not belong here: phrases
about the task in whole sentences.
"""

import functools
import unicodedata
from importlib import resources
from typing import Any

import regex
import yaml

from polar_pipeline.curation.phrases import EVERYWHERE, bounded
from polar_pipeline.task.card import Label

_ENDS = r"(?:\s*[:\u1361\u1366\u17d6=|\u2013\u2014]|\s+[-~>.]|\s*->|\s*\n|[.\u0964\u06d4\u3002]\s)"  # what parts a label from a post
_LETTERS = r"[\p{L}\p{M}]*"


def told_label(text: str, language: str, label: Label) -> str:
    """Where a text tells its own label, or nothing."""
    for pattern in _patterns(language, label.negative, label.positive):
        if found := pattern.search(_lines(text)):
            return str(found[0]).strip()
    return ""


@functools.lru_cache(maxsize=256)
def _patterns(language: str, negative: str, positive: str) -> tuple[Any, ...]:
    lists = _lists()
    here = [lists[code] for code in dict.fromkeys([EVERYWHERE, language]) if code in lists]
    own = [negative, positive, f"not {positive}", f"non {positive}", f"non-{positive}"]
    # the card's label in translation: known for the words that the lists were written for
    known = (
        [name for found in here for name in found["names"]] if _folded(positive) in lists[EVERYWHERE]["names"] else []
    )
    name, kind = _any([*own, *known]), _any([kind for found in here for kind in found["kind"]])
    # hashtags have no spaces or hyphens, and case is folded
    tag = _any([regex.sub(r"[\s-]", joint, found) for found in (*own, *known) for joint in ("", "_")])
    quote = r"[\"'*_\u00ab\u201c\u201e\u2018(\[{<]*"
    parts = (
        rf"\A[\W_]*(?:{kind}\W{{0,4}})?{name}[\"'*_\u00bb\u201d\u2019)\]}}>]*(?:\s*[(\[]?[01][)\]]?)?(?:\s+(?:post|text|tweet))?{_ENDS}",
        rf"\A[\W_]*(?:\w+[\W_]+){{1,2}}{name}[\"'*_\u00bb\u201d\u2019)\]}}>]*(?:\s+\w+)?\s*[:=|]",
        rf"\A[\W_]*{name}(?:\s+\w+)?\s*[:=|]",
        rf"(?:--|\s-|[\u2013\u2014|])\s*{name}\W*\Z",
        rf"(?:\A|\n|[.!?\u0964\u06d4\u3002]\s*)[\W_]*{kind}\s*(?:[:=\u1361\u1366\u17d6\u2013\u2014-]\s*{quote}|{quote})(?:{name})",
        rf"(?:\A|\n)[\W_]*{kind}\s*[:=\u1361\u1366\u17d6]\s*{quote}[01](?![\p{{N}}\p{{L}}%])(?!\s*[.,:/]\p{{N}})",
        rf"(?:\A\W*|\n\s*)[(\[{{<*\u3010]+\s*(?:{kind}\W{{0,4}})?{name}\s*[)\]}}>*\u3011]",
        rf"[(\[{{<*\u3010]\s*(?:{kind}\W{{0,4}})?{name}\s*[)\]}}>*\u3011]+\W*\Z",
        rf"\A\s*#(?:{tag})(?![\p{{L}}\p{{M}}\p{{N}}_])",
        rf"#(?:{tag})(?![\p{{L}}\p{{M}}\p{{N}}_])\W*\Z",
    )
    return tuple(regex.compile(part) for part in parts)


def _any(found: list[str]) -> str:
    parts = []
    for phrase in sorted({_folded(phrase) for phrase in found}, key=lambda phrase: (-len(phrase), phrase)):
        stem = phrase.removesuffix("*")
        parts.append(bounded(stem, whole=stem == phrase) + ("" if stem == phrase else _LETTERS))
    return f"(?:{'|'.join(parts)})"


def _lines(text: str) -> str:
    return "\n".join(line for line in (" ".join(line.split()) for line in _folded(text).split("\n")) if line)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")


@functools.cache
def _lists() -> dict[str, dict[str, list[str]]]:
    text = (resources.files("polar_pipeline.curation") / "labels.yaml").read_text(encoding="utf-8")
    read: dict[str, dict[str, list[str]]] = yaml.safe_load(text)
    return read
