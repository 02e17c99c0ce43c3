"""The quality filter: each stage names the texts that it objects to. The first objection counts, and no row is removed.

Stages in order: empty, leakage (of the label), length, language, meta (what an assistant says around a post or instead
of one), markup, truncated.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np

from polar_pipeline.corpus.identification import CLD3, Identifier
from polar_pipeline.corpus.text import dominant_scripts
from polar_pipeline.curation.assistant_talk import AssistantTalk
from polar_pipeline.curation.cleaning import has_markup
from polar_pipeline.curation.label_leakage import label_leak
from polar_pipeline.curation.language_filter import LanguageFilter
from polar_pipeline.task.card import Label
from polar_pipeline.task.languages import Language

_OUTLIERS = 0.0025  # share of real posts beyond each limit of length
_SLACK = 1.5  # factor by which the limits are wider than that
_CUT_MARKS = ",([{\u201e\u00ab\u060c\u3001\uff0c:;-"  # a text that ends in one of these was probably cut off
_CUT_COMMON = 0.003  # share of real posts that end in a mark from which it means nothing


class Objection(NamedTuple):
    """The stage that objects to a row, and why."""

    stage: str
    reason: str


class QualityFilter:
    """What is normal in a language, learned from its real training posts."""

    def __init__(self, language: Language, real: list[str], label: Label, identifier: Identifier = CLD3) -> None:
        self._language, self._label = language, label
        low, high = np.quantile([float(len(text)) for text in real], [_OUTLIERS, 1 - _OUTLIERS])
        self._shortest, self._longest = low / _SLACK, high * _SLACK
        self.language_filter = LanguageFilter(language, real, identifier)
        self._assistant_talk = AssistantTalk(language.code, real)
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
        if sentence := self._assistant_talk(text):
            return Objection("meta", f"an assistant says {sentence!r}")
        if has_markup(text):
            return Objection("markup", "markup is left in it")
        if text.rstrip()[-1] in self._cut_marks:
            return Objection("truncated", f"ends in {text.rstrip()[-1]!r}")
        return None
