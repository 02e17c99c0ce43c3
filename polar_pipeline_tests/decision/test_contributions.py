"""What a part is worth is the cross-fitted decision without it, beside the one with it."""

import numpy as np
import pytest

from polar_pipeline.decision.contributions import each_rule, without_each
from polar_pipeline.decision.members import MemberScores
from polar_pipeline.decision.selection import cross_fitted
from polar_pipeline.decision.thresholds import RULES
from polar_pipeline.metrics.scores import macro_f1
from polar_pipeline.settings.decision import DecisionSettings
from polar_pipeline_tests.decision.made import make_posts, member

QUICK = DecisionSettings()
POSTS = make_posts(1500)
TRAIN = (POSTS["fold"] >= 0).to_numpy()
LABELS, FOLDS = (POSTS.loc[TRAIN, column].to_numpy(dtype=int) for column in ("label", "fold"))
GOOD, POOR = (member(POSTS, name, noise=noise).rows(TRAIN) for name, noise in (("good", 1.0), ("poor", 2.0)))
NOISE = MemberScores("noise", (0,), np.random.default_rng(5).normal(size=(len(LABELS), 1)))


def test_the_better_member_is_worth_more_and_noise_nothing() -> None:
    found = {part.name: part for part in without_each("ridge", LABELS, FOLDS, [GOOD, NOISE, POOR], QUICK, 0)}
    assert found["good"].difference < found["poor"].difference < found["noise"].difference
    assert found["good"].difference_high < 0
    assert found["noise"].difference_low <= 0 <= found["noise"].difference_high


def test_it_is_the_difference_of_two_cross_fitted_decisions() -> None:
    found = without_each("ridge", LABELS, FOLDS, [GOOD, NOISE, POOR], QUICK, 0)[2]
    whole = cross_fitted("ridge", LABELS, FOLDS, [GOOD, NOISE, POOR])
    rest = cross_fitted("ridge", LABELS, FOLDS, [GOOD, NOISE])
    assert found.macro_f1 == pytest.approx(macro_f1(LABELS, rest))
    assert found.difference == pytest.approx(macro_f1(LABELS, rest) - macro_f1(LABELS, whole))


def test_of_two_members_the_other_is_left_alone() -> None:
    found = without_each("equal", LABELS, FOLDS, [GOOD, POOR], QUICK, 0)
    alone = cross_fitted("poor", LABELS, FOLDS, [POOR])
    assert (found[0].name, found[0].macro_f1) == ("good", pytest.approx(macro_f1(LABELS, alone)))
    assert without_each("good", LABELS, FOLDS, [GOOD, POOR], QUICK, 0) == ()


def test_every_rule_is_held_beside_the_profiles() -> None:
    found = each_rule("good", LABELS, FOLDS, [GOOD], DecisionSettings(threshold="argmax", resamples=20), 0)
    assert [part.name for part in found] == list(RULES)
    assert next(part for part in found if part.name == "argmax").difference == 0
