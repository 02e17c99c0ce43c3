"""The quality filter: each stage names what it objects to, the first objection counts, and no row is removed.

Stages, in order: empty, leakage (the label, told beside the post), length, script and language, meta (a model's talk about itself or the
task), markup, truncated.
What does not belong here: duplicates.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np

from polar_pipeline.corpus.text import dominant_scripts
from polar_pipeline.curation.cleaning import has_markup
from polar_pipeline.curation.labels import told_label
from polar_pipeline.curation.language import Accepted, accepted, foreign, surplus
from polar_pipeline.curation.phrases import found_phrase
from polar_pipeline.task.card import Label
from polar_pipeline.task.languages import Language

_RARE = 0.0025  # share of real posts beyond each limit of length
_SLACK = 1.5  # limits are this factor wider than what was seen
_CUTS = ",([{\u201e\u00ab\u060c\u3001\uff0c:;-"  # no post ends in one of these, unless it was cut off
_CUT_COMMON = 0.003  # share of real posts that end in one of them, from which that one says nothing


class Reference(NamedTuple):
    """What the real posts of a language look like, and the labels that none of them tells."""

    language: Language
    label: Label
    shortest: float
    longest: float
    accepted: Accepted
    cuts: frozenset[str]  # characters that no real post ends in


class Objection(NamedTuple):
    """The stage that objects to a row, and why."""

    stage: str
    reason: str


def reference(language: Language, real: list[str], label: Label) -> Reference:
    """Learn from the real training posts."""
    lengths = np.array([len(text) for text in real], dtype=float)
    low, high = np.quantile(lengths, [_RARE, 1 - _RARE])
    ends = Counter(text.rstrip()[-1:] for text in real)
    cuts = frozenset(mark for mark in _CUTS if ends[mark] <= _CUT_COMMON * len(real))
    return Reference(language, label, low / _SLACK, high * _SLACK, accepted(language, real), cuts)


def objections(texts: list[str], real: Reference, before: list[str] | None = None) -> list[Objection | None]:
    """The first objection to each cleaned text, None where there is none; `before` is what they were before cleaning.

    Markup that cleaning takes off may be what sets a label apart from the post.
    """
    scripts = dominant_scripts(texts)
    rows = zip(texts, before or texts, scripts, strict=True)
    found = [_objection(text, came, script, real) for text, came, script in rows]
    passing = [place for place, objection in enumerate(found) if objection is None]
    for place, reason in surplus([texts[place] for place in passing], real.accepted).items():
        found[passing[place]] = Objection("language", reason)
    return found


def _objection(text: str, before: str, script: str, real: Reference) -> Objection | None:
    if not text.strip():
        return Objection("empty", "nothing is left of it")
    told = told_label(text, real.language.code, real.label) or told_label(before, real.language.code, real.label)
    if told:
        return Objection("leakage", f"tells its label, {told[:40]!r}")
    if not real.shortest <= len(text) <= real.longest:
        return Objection("length", f"{len(text)} characters, real posts have {real.shortest:.0f} to {real.longest:.0f}")
    if other := foreign(text, script, real.accepted):
        return Objection("language", other)
    if phrase := found_phrase(text, real.language.code):
        return Objection("meta", f"says {phrase!r}")
    if has_markup(text):
        return Objection("markup", "markup is left in it")
    if text.rstrip()[-1] in real.cuts:
        return Objection("truncated", f"ends in {text.rstrip()[-1]!r}")
    return None
