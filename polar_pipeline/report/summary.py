"""Figures over all languages: the mean, what each part of a decision is worth, and which labels are missing.

Languages are independent samples, so the variances of their estimates add up. No drawing and no HTML here.
"""

from typing import NamedTuple

import numpy as np

from polar_pipeline.decision.record import Candidate
from polar_pipeline.metrics.intervals import Interval, mean_interval
from polar_pipeline.report.comparison import Reference
from polar_pipeline.report.records import DevTuned, LanguageEvidence

_NORMAL = 1.96  # a 95% interval is this many standard errors to each side
TARGET_HALF_WIDTH = 0.015  # of an interval: close enough to the truth to tell systems apart


class Ablation(NamedTuple):
    """A decision with one thing changed: means of the metric and of the difference to the reference over languages."""

    name: str
    languages: int
    value: float
    difference: Interval


class LabelNeed(NamedTuple):
    """How many more labelled posts would narrow a language's interval to plus or minus `TARGET_HALF_WIDTH`."""

    evidence: LanguageEvidence
    half_width: float
    minority: int  # labelled posts of the rarer class, which set the width
    posts: int


def summary_row(evidence: list[LanguageEvidence]) -> dict[str, float]:
    """Means over the languages: out-of-fold macro-F1 with its interval, dev and test where there are labels, and the
    gap between the expected macro-F1 and the one on dev or test.
    """
    mean = mean_interval([item.out_of_fold.value for item in evidence], [item.resamples for item in evidence])
    summary = {"languages": len(evidence), "macro_f1": mean.value, "macro_f1_low": mean.low, "macro_f1_high": mean.high}
    for name in ("dev", "test"):
        values = [estimate.value for item in evidence if (estimate := getattr(item, name))]
        if values:
            summary[f"macro_f1_{name}"] = sum(values) / len(values)
    pairs = observed_and_expected(evidence)
    if pairs:
        observed, expected = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        summary |= {"macro_f1_observed": observed, "generalisation_gap": observed - expected}
    errors = [label.decision.calibration_error for item in evidence for label in item.labels]
    summary["calibration_error"] = sum(errors) / len(errors)
    return summary


def observed_and_expected(evidence: list[LanguageEvidence]) -> list[tuple[float, float]]:
    """Both macro-F1 of the languages that have both, all on one split: test where any language has labels of it."""
    on_test = [(item.test.value, item.out_of_fold.value) for item in evidence if item.test]
    return on_test or [(item.observed.value, item.out_of_fold.value) for item in evidence if item.observed]


def ablations(candidates: list[tuple[Candidate, ...]]) -> list[Ablation]:
    """The mean of each name over the languages (one tuple each), in the order of first appearance."""
    names = dict.fromkeys(candidate.name for language in candidates for candidate in language)
    return [_mean(name, [c for language in candidates for c in language if c.name == name]) for name in names]


def label_needs(evidence: list[LanguageEvidence]) -> list[LabelNeed]:
    """Languages by the labels that they need, most first. The width of an interval falls with the root of the posts."""
    rows = []
    for item in evidence:
        estimate = item.out_of_fold
        half = (estimate.high - estimate.low) / 2
        rarest = min(min(label.positives, 1 - label.positives) for label in item.labels)
        minority = round(rarest * estimate.posts)
        more = max(round(estimate.posts * ((half / TARGET_HALF_WIDTH) ** 2 - 1)), 0)
        rows.append(LabelNeed(item, half, minority, more))
    return sorted(rows, key=lambda row: (-row.posts, row.evidence.language))


def mean_dev_tuned(evidence: list[LanguageEvidence]) -> DevTuned | None:
    """The mean over the labels of the languages that have labelled dev posts; None if there are none."""
    known = [label.dev_tuned for item in evidence for label in item.labels if label.dev_tuned]
    return DevTuned(*(sum(column) / len(known) for column in zip(*known, strict=True))) if known else None


def reference_means(references: list[Reference]) -> Reference | None:
    """The mean of each official figure; None without any."""
    if not references:
        return None
    return Reference(*(sum(column) / len(references) for column in zip(*references, strict=True)))


def leaderboard_position(value: float, means: Reference) -> str:
    """Where a mean macro-F1 would stand on the official leaderboard."""
    if value > means.winner:
        return "above the first place"
    if value > means.runner_up:
        return "between first and second place"
    return "between second place and the baseline" if value > means.baseline else "below the baseline"


def excluded_models(evidence: list[LanguageEvidence]) -> list[tuple[str, int, list[tuple[str, str]]]]:
    """Each model that was left out of a decision: member, seed, and (language's name, reason) wherever it was."""
    found: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for item in evidence:
        for label in item.labels:
            for model in label.decision.excluded:
                where = item.name if len(item.labels) == 1 else f"{item.name} ({label.name})"
                found.setdefault((model.name, model.seed), []).append((where, model.reason))
    return [(member, seed, found[member, seed]) for member, seed in sorted(found)]


def _mean(name: str, candidates: list[Candidate]) -> Ablation:
    difference = float(np.mean([candidate.difference for candidate in candidates]))
    errors = [(candidate.difference_high - candidate.difference_low) / (2 * _NORMAL) for candidate in candidates]
    half = _NORMAL * float(np.sqrt(np.sum(np.square(errors)))) / len(candidates)
    value = float(np.mean([candidate.value for candidate in candidates]))
    return Ablation(name, len(candidates), value, Interval(difference, difference - half, difference + half))
