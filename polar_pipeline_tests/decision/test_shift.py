"""The answer to a strong shift: only where it is strong, only where test may be looked at, and no more than it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.decision.shift import matching_threshold, pooled_members, shift_response
from polar_pipeline.settings.decision import DecisionSettings
from polar_pipeline_tests.decision.made import make_posts, member

POSTS = make_posts()


def test_a_response_needs_a_strong_shift_and_leave_to_look_at_test() -> None:
    settings = DecisionSettings(shift_response="rate_matching", shift_response_auc=0.8)
    assert shift_response(0.8, settings) == "rate_matching"
    assert shift_response(0.79, settings) == "none"
    assert shift_response(1.0, settings.model_copy(update={"transductive": False})) == "none"
    assert shift_response(1.0, settings.model_copy(update={"shift_response": "none"})) == "none"


def test_pooled_members_stay_and_without_any_all_do() -> None:
    members = [member(POSTS, name) for name in ("own", "pooled", "other")]
    assert [m.backbone for m in pooled_members(members, frozenset({"pooled", "absent"}))] == ["pooled"]
    assert pooled_members(members, frozenset()) == members


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60, unique=True), st.floats(0, 1))
def test_it_calls_that_share_positive(probabilities: list[float], share: float) -> None:
    scores = np.array(probabilities)
    positive = int((scores >= matching_threshold(scores, share)).sum())
    assert abs(positive - share * len(scores)) <= 0.5 + 1e-9


@pytest.mark.parametrize(("share", "positive"), [(0.0, 0), (1.0, 4), (0.2, 0), (0.5, 3)])
def test_ties_stay_together(share: float, positive: int) -> None:
    scores = np.array([0.1, 0.7, 0.7, 0.7])
    assert (scores >= matching_threshold(scores, share)).sum() == positive


def test_of_a_tied_block_the_nearer_side_is_taken() -> None:
    scores = np.full(100, 0.4)
    assert (scores >= matching_threshold(scores, 0.1)).sum() == 0
    assert (scores >= matching_threshold(scores, 0.9)).sum() == 100
