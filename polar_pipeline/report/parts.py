"""Over all languages: what each strategy, member and threshold rule is worth, where labels are wanted, and the place."""

from typing import NamedTuple

import numpy as np

from polar_pipeline.decision.record import Candidate
from polar_pipeline.metrics.intervals import Interval
from polar_pipeline.report.evidence import LanguageEvidence
from polar_pipeline.report.reference import Reference

_NORMAL = 1.96  # a 95% interval is this many standard errors to each side
WANTED = 0.015  # half-width of an interval at which a language's score is known well enough to compare systems


class Part(NamedTuple):
    """One way to decide, over the languages that have it: mean macro-F1, and mean difference to the reference."""

    name: str
    languages: int
    macro_f1: float
    difference: Interval


class Wanted(NamedTuple):
    """How many more labelled posts would narrow a language's interval to plus or minus `WANTED`."""

    evidence: LanguageEvidence
    half_width: float
    rarer: int  # labelled posts of the rarer class, which set the width
    posts: int


def parts(found: list[tuple[Candidate, ...]]) -> list[Part]:
    """Each name's mean over the languages, in the order of first appearance. Languages are independent, so variances add."""
    names = dict.fromkeys(candidate.name for candidates in found for candidate in candidates)
    return [_mean(name, [c for candidates in found for c in candidates if c.name == name]) for name in names]


def wanted_labels(evidence: list[LanguageEvidence]) -> list[Wanted]:
    """Languages by the number of labels that they lack, most first; an interval's width falls with the root of the posts."""
    rows = []
    for item in evidence:
        estimate = item.out_of_fold
        half = (estimate.high - estimate.low) / 2
        rarer = round(min(item.decision.positives, 1 - item.decision.positives) * estimate.posts)
        rows.append(Wanted(item, half, rarer, max(round(estimate.posts * ((half / WANTED) ** 2 - 1)), 0)))
    return sorted(rows, key=lambda row: (-row.posts, row.evidence.language))


def place(value: float, means: Reference) -> str:
    """Where a mean macro-F1 would stand on the official leaderboard."""
    if value > means.winner:
        return "above the winner"
    if value > means.psk:
        return "between the winner and PSK"
    return "between PSK and the baseline" if value > means.baseline else "below the baseline"


def _mean(name: str, candidates: list[Candidate]) -> Part:
    difference = float(np.mean([candidate.difference for candidate in candidates]))
    errors = [(candidate.difference_high - candidate.difference_low) / (2 * _NORMAL) for candidate in candidates]
    half = _NORMAL * float(np.sqrt(np.sum(np.square(errors)))) / len(candidates)
    value = float(np.mean([candidate.macro_f1 for candidate in candidates]))
    return Part(name, len(candidates), value, Interval(difference, difference - half, difference + half))
