"""Broken models are found by their own scores, named with seed and reason, and nothing else is left out."""

import re

import numpy as np
import pandas as pd
import pytest

from polar_pipeline.decision.members import MemberScores
from polar_pipeline.decision.screening import screen
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline_tests.decision.made import make_posts, member

POSTS = make_posts()
FINAL = (POSTS["fold"] < 0).to_numpy()


def broken(final: "Floats | float | None" = None, inside: "Floats | float | None" = None) -> list[MemberScores]:
    """Two backbones of two seeds, of which seed 1 of `b` has other scores outside or inside the folds."""
    members = [member(POSTS, "a", seeds=2), member(POSTS, "b", seeds=2)]
    scores = members[1].logits
    if final is not None:
        scores[FINAL, 1] = final
    if inside is not None:
        scores[~FINAL, 1] = inside
    return members


def test_sound_models_stay() -> None:
    members = broken()
    kept, excluded = screen(POSTS, members)
    assert excluded == ()
    assert [(m.backbone, m.seeds) for m in kept] == [("a", (0, 1)), ("b", (0, 1))]
    for before, after in zip(members, kept, strict=True):
        np.testing.assert_array_equal(before.logits, after.logits)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (broken(inside=2.0), "its out-of-fold logits are constant"),
        (broken(final=0.1), r"spread 0\.0% as far"),
        (broken(final=0.05 * broken()[1].logits[FINAL, 1]), r"spread \d\.\d% as far"),
        (broken(final=9 + broken()[1].logits[FINAL, 1]), r"puts 100\.0% of the posts into one class"),
        (broken(final=-broken()[1].logits[FINAL, 1]), r"agreement with the others is -0\.\d\d, that of its folds 0\."),
        (broken(inside=-broken()[1].logits[~FINAL, 1]), r"its out-of-fold scores are inverted \(AUC 0\.0"),
        (broken(final=np.random.default_rng(0).normal(size=FINAL.sum())), "agreement with the others is -?0.[01]"),
    ],
)
def test_each_fault_is_named_and_only_that_model_leaves(members: list[MemberScores], reason: str) -> None:
    kept, excluded = screen(POSTS, members)
    assert [(model.backbone, model.seed) for model in excluded] == [("b", 1)]
    assert re.search(reason, excluded[0].reason)
    assert [(m.backbone, m.seeds) for m in kept] == [("a", (0, 1)), ("b", (0,))]


def test_labels_outside_folds_do_not_matter() -> None:
    flipped = POSTS.assign(label=POSTS["label"].where(POSTS["split"] != "dev", 1 - POSTS["label"]))
    assert screen(flipped, broken())[1] == ()
    assert screen(flipped, broken(final=0.1))[1] == screen(POSTS, broken(final=0.1))[1]


def test_labels_of_test_do_not_matter() -> None:
    labelled = POSTS.assign(label=POSTS["label"].fillna(1))
    for members in (broken(), broken(final=0.1), broken(final=-broken()[1].logits[FINAL, 1])):
        assert screen(labelled, members)[1] == screen(POSTS, members)[1]


def test_bolder_shyer_and_weak_models_are_not_called_broken() -> None:
    for draw in range(30):
        bolder, shyer = (member(POSTS, f"{name}{draw}") for name in ("bolder", "shyer"))
        bolder.logits[FINAL] *= 2
        shyer.logits[FINAL] *= 0.5
        assert screen(POSTS, [bolder, shyer, member(POSTS, f"weak{draw}", noise=4.0)])[1] == ()


def test_test_posts_are_not_looked_at_unless_allowed() -> None:
    members = broken()
    members[1].logits[(POSTS["split"] == "test").to_numpy(), 1] *= -1
    assert screen(POSTS, members, transductive=True)[1] != ()
    assert screen(POSTS, members, transductive=False)[1] == ()


def test_two_models_that_disagree_both_stay_because_nobody_knows_which_is_wrong() -> None:
    members = [member(POSTS, "a"), member(POSTS, "b")]
    members[1].logits[FINAL] *= -1
    assert screen(POSTS, members)[1] == ()


def test_several_broken_models_are_found_one_after_the_other() -> None:
    members = [member(POSTS, name) for name in "abcde"]
    for place in (1, 3):
        members[place].logits[FINAL] *= -1
    assert [model.backbone for model in screen(POSTS, members)[1]] == ["b", "d"]
    assert screen(POSTS, members[::-1])[1] == screen(POSTS, members)[1]


def test_without_folds_dev_is_what_can_be_judged() -> None:
    posts = make_posts(2000).assign(fold=-1)
    sound = [member(posts, "a"), member(posts, "b")]
    assert screen(posts, sound)[1] == ()
    inverted = [MemberScores("a", (0,), -3 * sound[0].logits), sound[1]]
    assert [model.backbone for model in screen(posts, inverted)[1]] == ["a"]


def test_no_model_left_is_an_error_that_names_them_all() -> None:
    flat = [MemberScores(name, (7,), np.zeros((len(POSTS), 1))) for name in "ab"]
    with pytest.raises(InputError, match=r"a seed 7: its out-of-fold logits are constant; b seed 7"):
        screen(POSTS, flat)


def test_noise_stays_because_weights_take_care_of_it() -> None:
    noise = MemberScores("z", (0,), np.random.default_rng(3).normal(size=(len(POSTS), 1)))
    assert screen(POSTS, [*broken(), noise])[1] == ()


def test_a_weak_model_does_not_hide_a_broken_one() -> None:
    weak = MemberScores("weak", (0,), np.random.default_rng(3).normal(size=(len(POSTS), 1)))
    weak.logits[FINAL, 0] = -broken()[0].logits[FINAL, 0]  # by chance its final model runs against the others
    found = screen(POSTS, [*broken(final=-broken()[1].logits[FINAL, 1]), weak])[1]
    assert ("b", 1) in [(model.backbone, model.seed) for model in found]


def test_one_class_only_is_no_reason() -> None:
    posts = POSTS.assign(label=pd.array(np.where(POSTS["split"] == "test", None, 1), dtype="Int8"))
    assert screen(posts, broken())[1] == ()
