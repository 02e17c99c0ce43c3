"""A decision is applied as it says, post by post, and the files hold what they promise to the byte."""

from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from polar_pipeline.decision.decide import decide
from polar_pipeline.decision.predictions import note_on_new_posts, predict, predict_new, write_predictions, write_review
from polar_pipeline.decision.record import Decision
from polar_pipeline.errors import InputError
from polar_pipeline.settings.profile import Profile
from polar_pipeline.task.card import load_card
from polar_pipeline_tests.decision.made import make_posts, truth

CARD = load_card("polar")
POSTS = make_posts(600)
TEST = (POSTS["split"] == "test").to_numpy()
PROFILE = Profile(name="test", description="", seed=3)
REFUSED = r"x was decided with other models or scores of {} than these: materialize thresholds for x again"


def scores_of(posts: pd.DataFrame, moved: float = 0.0) -> pd.DataFrame:
    """Two backbones, one of two seeds; scores of test are `moved`."""
    generator = np.random.default_rng(1)
    tables = []
    for backbone, seed in (("a", 0), ("a", 1), ("b", 7)):
        logit = truth(posts) + generator.normal(size=len(posts)) + moved * (posts["split"] == "test").to_numpy()
        tables.append(
            posts[["id", "split", "fold"]].assign(backbone=backbone, head="label", seed=seed, language="x", logit=logit)
        )
    return pd.concat(tables)


def decision_of(scores: pd.DataFrame, auc: float = 0.5, profile: Profile = PROFILE) -> Decision:
    return decide("x", POSTS, scores, profile, {"a": "0" * 64, "b": "1" * 64}, "f", auc)


@cache
def usual() -> tuple[pd.DataFrame, Decision]:
    """Scores and what was decided with them, which takes a second."""
    scores = scores_of(POSTS)
    return scores, decision_of(scores)


def test_margin_and_review_are_what_they_say() -> None:
    scores, decision = usual()
    found = predict(decision, POSTS, scores)
    np.testing.assert_allclose(found["margin"], (found["probability"] - decision.threshold).abs())
    assert (found["review"] == (found["margin"] < decision.review_margin)).all()
    assert found.loc[found["fold"] >= 0, "review"].mean() == pytest.approx(0.1, abs=0.01)
    none = PROFILE.model_copy(update={"decision": PROFILE.decision.model_copy(update={"review_share": 0.0})})
    assert not predict(decision_of(scores, profile=none), POSTS, scores)["review"].any()


def test_new_posts_are_decided_as_those_of_test() -> None:
    scores = scores_of(POSTS).query("seed != 1")
    decision = decision_of(scores)
    logits = {name: scores.loc[scores["backbone"] == name, "logit"].to_numpy()[TEST] for name in "ab"}
    new = predict_new(decision, logits, int(TEST.sum()))
    pd.testing.assert_frame_equal(
        new, predict(decision, POSTS, scores).loc[TEST, new.columns.tolist()].reset_index(drop=True)
    )
    one = {name: values[:1] for name, values in logits.items()}
    assert predict_new(decision, one, 1)["probability"].tolist() == new["probability"][:1].tolist()


def test_rate_matching_moves_test_alone_and_only_under_strong_shift() -> None:
    moved = scores_of(POSTS, moved=-2.0)
    calm, shifted = decision_of(moved, auc=0.6), decision_of(moved, auc=0.95)
    assert (calm.shift_response, shifted.shift_response) == ("none", "rate_matching")
    assert calm.threshold == shifted.threshold
    before, after = predict(calm, POSTS, moved), predict(shifted, POSTS, moved)
    pd.testing.assert_frame_equal(before[~TEST], after[~TEST])
    assert before.loc[TEST, "prediction"].mean() < 0.3
    assert after.loc[TEST, "prediction"].mean() == pytest.approx(shifted.positive_share, abs=0.005)
    switched_off = PROFILE.model_copy(update={"decision": PROFILE.decision.model_copy(update={"transductive": False})})
    decision = decision_of(moved, 0.95, switched_off)
    assert (decision.shift_response, decision.shift_auc) == ("none", None)


def test_only_rate_matching_is_another_thing_for_new_posts() -> None:
    moved = scores_of(POSTS, moved=-2.0)
    assert note_on_new_posts(decision_of(moved, auc=0.6)) == ""
    shifted = decision_of(moved, auc=0.95)
    assert note_on_new_posts(shifted) == (
        "x was decided with rate matching, which sets the threshold of test from all test posts together: new posts "
        f"are judged one by one, by the out-of-fold threshold {shifted.threshold:.3f} instead."
    )
    logits = {name: moved.loc[(moved["backbone"] == name) & (moved["seed"] != 1), "logit"].to_numpy() for name in "ab"}
    new = predict_new(shifted, logits, len(POSTS))
    assert ((new["probability"] >= shifted.threshold) == (new["prediction"] == 1)).all()


def test_each_head_is_a_member_with_scores_of_its_own() -> None:
    """Heads of one backbone are decided with, excluded and applied like backbones of their own."""
    scores = scores_of(POSTS)
    noise = np.random.default_rng(2).normal(size=len(POSTS))
    types = scores[scores["backbone"] == "b"].assign(head="types", logit=lambda table: table["logit"] + noise)
    flat = scores[scores["backbone"] == "a"].assign(head="types", logit=0.0)
    whole = pd.concat([scores, types, flat])
    decision = decision_of(whole)
    assert [(member.name, member.seeds) for member in decision.members] == [
        ("a", (0, 1)),
        ("b", (7,)),
        ("b.types", (7,)),
    ]
    assert [(model.name, model.seed) for model in decision.excluded] == [("a.types", 0), ("a.types", 1)]
    assert {"b", "b.types"} < {found.name for found in decision.candidates}
    names = {(member.backbone, member.head): member.name for member in decision.members}
    keys = zip(whole["backbone"], whole["head"], strict=True)
    renamed = whole.assign(backbone=[names.get(key, "other").replace(".", "_") for key in keys], head="label")
    alike = decide("x", POSTS, renamed, PROFILE, dict.fromkeys(["a", "b", "b_types"], ""), "f")
    assert [member.weight for member in alike.members] == [member.weight for member in decision.members]
    found = predict(decision, POSTS, whole)
    pd.testing.assert_frame_equal(found, predict(alike, POSTS, renamed))
    others = whole.assign(logit=whole["logit"].where((whole["backbone"] + whole["head"]) != "btypes", 1.0))
    with pytest.raises(InputError, match=REFUSED.format("b")):
        predict(decision, POSTS, others)
    logits = {
        member.name: whole[(whole["backbone"] == member.backbone) & (whole["head"] == member.head)]
        .groupby("id", sort=False)["logit"]
        .mean()
        .to_numpy()
        for member in decision.members
    }
    np.testing.assert_allclose(predict_new(decision, logits, len(POSTS))["probability"], found["probability"])


def test_a_decision_is_that_of_its_members_whatever_else_the_table_holds() -> None:
    scores, decision = usual()
    extra = scores.assign(backbone="c", logit=np.inf)
    found = predict(decision, POSTS, pd.concat([extra, scores]).sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(found, predict(decision, POSTS, scores))


def test_a_member_or_seed_that_is_gone_is_named() -> None:
    scores, decision = usual()
    for name, gone in (("b", scores["backbone"] == "b"), ("a", (scores["backbone"] == "a") & (scores["seed"] == 1))):
        with pytest.raises(InputError, match=REFUSED.format(name)):
            predict(decision, POSTS, scores[~gone])


def other_scores() -> dict[str, tuple[pd.DataFrame, str]]:
    """Tables that look like the decided ones, and the members that differ."""
    scores = scores_of(POSTS)
    one = scores["logit"].to_numpy().copy()
    one[700] = np.nextafter(one[700], np.inf)  # a post of backbone a, seed 0
    is_b, test = scores["backbone"] == "b", scores["split"] == "test"
    return {
        "logits times -3": (scores.assign(logit=-3 * scores["logit"]), "a, b"),
        "one backbone times -3": (scores.assign(logit=scores["logit"].where(~is_b, -3 * scores["logit"])), "b"),
        "the last bit of one logit": (scores.assign(logit=one), "a"),
        "two seeds exchanged": (scores.assign(seed=scores["seed"].replace({0: 1, 1: 0})), "a"),
        "another seed": (scores.assign(seed=scores["seed"].replace({7: 8})), "b"),
        "one more seed": (pd.concat([scores, scores[is_b].assign(seed=8)]), "b"),
        "two backbones exchanged": (scores.assign(backbone=scores["backbone"].replace({"a": "b", "b": "a"})), "a, b"),
        "a logit that is infinite": (scores.assign(logit=scores["logit"].where(is_b, np.inf)), "a"),
        "another fold": (scores.assign(fold=scores["fold"].where(~is_b, 0)), "b"),
        "test of other scores": (scores.assign(logit=scores["logit"].where(~test, -scores["logit"])), "a, b"),
    }


@pytest.mark.parametrize("what", other_scores())
def test_a_decision_is_applied_to_no_other_scores(what: str) -> None:
    scores, names = other_scores()[what]
    with pytest.raises(InputError, match=REFUSED.format(names)):
        predict(usual()[1], POSTS, scores)


def test_a_model_that_was_left_out_belongs_to_the_decided_scores() -> None:
    """Its seeds are no members, and its scores are hashed with those of its backbone."""
    scores = scores_of(POSTS)
    wrong = (scores["backbone"] == "a") & (scores["seed"] == 1)
    scores = scores.assign(logit=scores["logit"].where(~wrong, -scores["logit"]))
    decision = decision_of(scores)
    assert [(model.backbone, model.seed) for model in decision.excluded] == [("a", 1)]
    assert [member.seeds for member in decision.members] == [(0,), (7,)]
    assert len(predict(decision, POSTS, scores)) == len(POSTS)
    with pytest.raises(InputError, match=REFUSED.format("a")):
        predict(decision, POSTS, scores[~wrong])


FRAME = pd.DataFrame(
    {
        "target": "label",
        "id": ["t1", "b", "a", "d"],
        "split": ["train", "test", "test", "dev"],
        "fold": [0, -1, -1, 1],
        "probability": [0.9, 1 / 3, 1.0, 0.5],
        "prediction": [1, 0, 1, 1],
        "margin": [0.01, 1 / 6, 0.5, 0.0],
        "review": [True, True, False, True],
    }
)


def test_predictions_to_the_byte(tmp_path: Path) -> None:
    path = write_predictions(tmp_path / "deu.csv", FRAME, CARD)
    assert path.read_bytes() == b"id,polarization,probability\nb,0,0.333333\na,1,1.000000\n"


def test_review_to_the_byte(tmp_path: Path) -> None:
    path = write_review(tmp_path / "deu.csv", FRAME, CARD)
    assert path.read_bytes() == (
        b"split,id,polarization,probability,margin\ndev,d,1,0.500000,0.000000\ntest,b,0,0.333333,0.166667\n"
    )
