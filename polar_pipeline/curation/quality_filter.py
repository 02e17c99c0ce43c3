"""The quality filter: each stage names the texts that it objects to. The first objection counts, and no row is removed.

Stages in order: empty, leakage (of the label), length, language, meta (a model's talk about itself or the task, and
refusals, by the phrases in `quality_filter.yaml`), markup, truncated.
"""

import functools
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import regex

from polar_pipeline.corpus.text import dominant_scripts, fold_case
from polar_pipeline.curation.cleaning import has_markup
from polar_pipeline.curation.label_leakage import ENGLISH, label_leak, word_lists, word_pattern
from polar_pipeline.curation.language_filter import LanguageFilter
from polar_pipeline.task.card import Label
from polar_pipeline.task.languages import Language

_OUTLIERS = 0.0025  # share of real posts beyond each limit of length
_SLACK = 1.5  # factor by which the limits are wider than that
_CUT_MARKS = ",([{\u201e\u00ab\u060c\u3001\uff0c:;-"  # a text that ends in one of these was probably cut off
_CUT_COMMON = 0.003  # share of real posts that end in a mark from which it means nothing
_INTRODUCTION = 120  # characters at the start in which an introduction stands
_APOLOGY = 40  # characters at the start in which an apology begins
_SHORT = 200  # characters of an answer that only declines
_NEAR = 90  # characters around "cannot" within which a refusal says the rest


class Objection(NamedTuple):
    """The stage that objects to a row, and why."""

    stage: str
    reason: str


class QualityFilter:
    """What is normal in a language, learned from its real training posts."""

    def __init__(self, language: Language, real: list[str], label: Label) -> None:
        self._language, self._label = language, label
        low, high = np.quantile([float(len(text)) for text in real], [_OUTLIERS, 1 - _OUTLIERS])
        self._shortest, self._longest = low / _SLACK, high * _SLACK
        self.language_filter = LanguageFilter(language, real)
        ends = Counter(text.rstrip()[-1:] for text in real)
        self._cut_marks = frozenset(mark for mark in _CUT_MARKS if ends[mark] <= _CUT_COMMON * len(real))

    def objections(self, texts: list[str], uncleaned: list[str] | None = None) -> list[Objection | None]:
        """The first objection to each cleaned text, None where there is none.

        `uncleaned` are the same texts before cleaning, whose markup may set a label apart from the post.
        """
        rows = zip(texts, uncleaned or texts, dominant_scripts(texts), strict=True)
        found = [self._objection(text, before, script) for text, before, script in rows]
        passed = [place for place, objection in enumerate(found) if objection is None]
        for place, reason in self.language_filter.surplus([texts[place] for place in passed]).items():
            found[passed[place]] = Objection("language", reason)
        return found

    def _objection(self, text: str, uncleaned: str, script: str) -> Objection | None:
        code = self._language.code
        if not text.strip():
            return Objection("empty", "nothing is left of it")
        if leak := label_leak(text, code, self._label) or label_leak(uncleaned, code, self._label):
            return Objection("leakage", f"tells its label, {leak[:40]!r}")
        if not self._shortest <= len(text) <= self._longest:
            usual = f"{self._shortest:.0f} to {self._longest:.0f}"
            return Objection("length", f"{len(text)} characters, real posts have {usual}")
        if other := self.language_filter.foreign(text, script):
            return Objection("language", other)
        if phrase := meta_phrase(text, code):
            return Objection("meta", f"says {phrase!r}")
        if has_markup(text):
            return Objection("markup", "markup is left in it")
        if text.rstrip()[-1] in self._cut_marks:
            return Objection("truncated", f"ends in {text.rstrip()[-1]!r}")
        return None


def meta_phrase(text: str, language: str) -> str:
    """The first sign of a model's own words in a text, or "".

    A phrase that is enough alone; "here is the post:" at the start, in other words too; "cannot", "write" and "post"
    near each other; or a short text that starts with an apology, with "cannot" near it.
    """
    content = _flatten(text)
    for signs in _signs(language):
        if found := signs.says.search(content) or signs.opens.match(content[:_INTRODUCTION]):
            return str(found[0])
        sorry = signs.sorry.search(content[:_APOLOGY])
        for match in signs.cannot.finditer(content):
            around = content[max(match.start() - _NEAR, 0) : match.end() + _NEAR]
            apologises = sorry and match.start() < sorry.end() + _NEAR and len(content) < _SHORT
            if apologises or (signs.make.search(around) and signs.post.search(around)):
                return str(match[0])
    return ""


class _Signs(NamedTuple):
    """Compiled patterns of one language."""

    says: Any
    opens: Any
    cannot: Any
    make: Any
    post: Any
    sorry: Any


def _signs(language: str) -> list[_Signs]:
    return [_compile(code) for code in dict.fromkeys([ENGLISH, language]) if code in word_lists("quality_filter")]


@functools.cache
def _compile(language: str) -> _Signs:
    lists = word_lists("quality_filter")[language]
    says, here, cannot, post, sorry = (_any(lists[kind]) for kind in ("says", "here", "cannot", "post", "sorry"))
    # at most a greeting before it, and a colon after it; the order of "here" and "post" depends on the grammar
    either = rf"{here.pattern}.{{0,60}}?{post.pattern}|{post.pattern}.{{0,60}}?{here.pattern}"
    opens = regex.compile(rf"(?:\W*\w+\W+){{0,3}}?(?:{either}).{{0,60}}?[:\uff1a\u2014]")
    return _Signs(says, opens, cannot, _any(lists["make"], whole=False), post, sorry)


def _any(phrases: list[str], whole: bool = True) -> Any:
    """Any of the phrases, as whole words or as beginnings of words."""
    parts = [word_pattern(_flatten(phrase), whole) for phrase in sorted(phrases, key=len, reverse=True)]
    return regex.compile(f"(?:{'|'.join(parts)})")


def _flatten(text: str) -> str:
    """Folded, with one kind of apostrophe and of space."""
    return " ".join(fold_case(text).replace("\u2019", "'").replace("\u02bc", "'").split())
