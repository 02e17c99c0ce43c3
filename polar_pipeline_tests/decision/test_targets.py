"""All targets together: a binary task is the case of one, constant labels stay apart, answers agree with each other."""

import numpy as np
import pandas as pd

from polar_pipeline.decision.decide import decide
from polar_pipeline.decision.predictions import predict, predict_targets
from polar_pipeline.decision.targets import (
    consistent_answers,
    decide_targets,
    metric_of,
    nested_targets,
    target_scores,
)
from polar_pipeline.task.card import MAIN_HEAD, TaskCard, load_card
from polar_pipeline_tests.decision.test_decide import PROFILE, make_posts, make_scores

SEVERAL = TaskCard.model_validate(
    {"name": "moods", "title": "Moods", "kind": "multilabel", "labels": ["never", "joy", "grief"]}
)
ADAPTERS = {"one": "0" * 64}


def several() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Posts whose label `never` has no positives, and scores of the others."""
    posts = make_posts()
    joy, grief = posts["label"], make_posts(seed=5)["label"]
    scores = [
        make_scores(posts.assign(label=label), seed=seed).assign(head=head)
        for seed, (head, label) in enumerate([("joy", joy), ("grief", grief)])
    ]
    posts = posts.assign(never=joy.where(joy.isna(), 0), joy=joy, grief=grief)
    return posts.assign(label=posts[["joy", "grief"]].max(axis=1, skipna=False)), pd.concat(scores)


def test_a_binary_task_has_one_target() -> None:
    posts = make_posts()
    scores, card = make_scores(posts), load_card("polar")
    decisions = decide_targets("x", posts, scores, PROFILE, card, ADAPTERS, "f")
    alone = decide("x", posts, scores, PROFILE, ADAPTERS, "f")
    assert decisions.targets == (alone,) and decisions.out_of_fold == alone.out_of_fold
    together = predict_targets(decisions, posts, scores, card)
    assert set(together["target"]) == {MAIN_HEAD}
    pd.testing.assert_frame_equal(together.drop(columns="target"), predict(alone, posts, scores))


def test_each_label_is_decided_by_its_own_scores() -> None:
    posts, scores = several()
    decisions = decide_targets("x", posts, scores, PROFILE, SEVERAL, ADAPTERS, "f")
    by_name = {one.target: one for one in decisions.targets}
    mine = target_scores(scores, "grief", SEVERAL)
    alone = decide("x", posts.assign(label=posts["grief"]), mine, PROFILE, ADAPTERS, "f")
    # alone it is judged by the macro-F1 of both answers, here by the F1 of its positives
    assert by_name["grief"].members == alone.members and by_name["grief"].confusion != by_name["joy"].confusion
    nested = nested_targets(decisions, posts)
    given, truth = (nested[name].unstack("target").to_numpy(dtype=int) for name in ("prediction", "label"))
    assert decisions.out_of_fold.value == metric_of(SEVERAL).value(truth, given)


def test_a_label_without_positives_hides_no_response_to_a_shift() -> None:
    posts, scores = several()
    decisions = decide_targets("x", posts, scores, PROFILE, SEVERAL, ADAPTERS, "f", shift_auc=0.95)
    assert decisions.first.strategy == "constant" and decisions.first.shift_response == "none"
    assert decisions.shift_response == "rate_matching" and "constant" in decisions.strategy
    found = predict_targets(decisions, posts, scores, SEVERAL)
    assert (found.loc[found["target"] == "never", "prediction"] == 0).all()
    test = found[(found["split"] == "test") & (found["target"] == "joy")]["prediction"].mean()
    assert abs(test - decisions.targets[1].positive_share) < 0.01


def test_answers_that_agree_with_having_any_label() -> None:
    given = np.array([[1, 0], [0, 0], [1, 1], [0, 0]])
    distances = np.array([[0.1, -0.2], [-0.3, -0.1], [0.2, 0.3], [-0.1, -0.2]])
    found = consistent_answers(given, distances, np.array([0, 1, 1, 0]))
    assert found.tolist() == [[0, 0], [0, 1], [1, 1], [0, 0]]
