"""Means over languages, their intervals, the labels needed, and the position on the leaderboard."""

import numpy as np
import pytest

from polar_pipeline.decision.record import Candidate
from polar_pipeline.report.comparison import Reference
from polar_pipeline.report.summary import TARGET_HALF_WIDTH, ablations, label_needs, leaderboard_position
from polar_pipeline_tests.report.made import evidence


def candidate(name: str, value: float, difference: float, half: float) -> Candidate:
    return Candidate(
        name=name, value=value, difference=difference,
        difference_low=difference - half, difference_high=difference + half,
    )  # fmt: skip


def test_a_mean_is_narrower_than_its_parts_by_the_root_of_their_number() -> None:
    languages = [(candidate("a", 0.7 + 0.1 * i, 0.01 * i, 0.02), candidate("b", 0.5, 0, 0)) for i in range(4)]
    first, second = ablations(languages)
    assert (first.name, first.languages, first.value) == ("a", 4, pytest.approx(0.85))
    assert first.difference.value == pytest.approx(0.015)
    assert first.difference.high - first.difference.value == pytest.approx(0.02 / np.sqrt(4))
    assert tuple(second.difference) == (0, 0, 0)


def test_what_only_some_languages_have_is_their_mean() -> None:
    found = ablations([(candidate("a", 0.7, 0, 0.1),), (candidate("a", 0.9, 0, 0.1), candidate("own", 0.6, -0.3, 0.1))])
    assert [(part.name, part.languages) for part in found] == [("a", 2), ("own", 1)]
    assert ablations([(), ()]) == []


def test_wider_intervals_need_more_labels() -> None:
    rows = label_needs([evidence("deu", seed=2), evidence("swa", seed=1)])
    assert rows[0].posts >= rows[1].posts > 0
    for row in rows:
        estimate = row.evidence.out_of_fold
        needed = estimate.posts + row.posts
        assert row.half_width * np.sqrt(estimate.posts / needed) == pytest.approx(TARGET_HALF_WIDTH, rel=1e-3)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.83, "above the first place"),
        (0.815, "between first and second place"),
        (0.8, "between second place and the baseline"),
        (0.7, "below the baseline"),
    ],
)
def test_leaderboard_position(value: float, words: str) -> None:
    assert leaderboard_position(value, Reference(baseline=0.76, runner_up=0.8115, winner=0.818, best=0.8335)) == words
