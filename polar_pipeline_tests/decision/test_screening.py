"""Broken models are found by their own scores, named with seed and reason, and nothing else is left out."""

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.decision.screening import screen, unsound
from polar_pipeline.decision.strategies import MemberScores
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.settings.decision import FoldSettings
from polar_pipeline.task.card import load_card
from polar_pipeline.task.languages import LANGUAGES
from polar_pipeline_tests.conftest import real_data
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


DEV = (POSTS["split"] == "dev").to_numpy()
SOUND = member(POSTS, "a").logits[:, 0]


def complaints(logits: Floats, posts: pd.DataFrame = POSTS) -> list[str]:
    scores = posts[["split", "id", "fold"]].assign(backbone="a", head="label", seed=7, language="deu", logit=logits)
    return unsound(posts, scores, "deu", transductive=True)


def replaced(rows: "np.typing.NDArray[np.bool_]", values: "Floats | float") -> Floats:
    logits = SOUND.copy()
    logits[rows] = values
    return logits


def test_a_sound_model_passes_and_no_scores_are_no_complaint() -> None:
    assert complaints(SOUND) == []
    assert unsound(POSTS, pd.DataFrame({"backbone": []}), "deu", transductive=True) == []


@pytest.mark.parametrize(
    ("logits", "complaint"),
    [
        (replaced(FINAL, 0.1), "spread 0.0%"),
        (replaced(FINAL, 9 + SOUND[FINAL]), "100.0% of the posts into one class"),
        (replaced(DEV, -SOUND[DEV]), "on dev, its folds"),
        (np.full(len(POSTS), 0.3), "logits are constant"),
    ],
)
def test_a_broken_final_model_is_named_with_its_fault(logits: Floats, complaint: str) -> None:
    (found,) = complaints(logits)
    assert found.startswith("a seed 7: ") and complaint in found


def test_without_folds_one_class_on_dev_is_a_fault() -> None:
    posts = POSTS[POSTS["split"] != "train"].assign(fold=-1).reset_index(drop=True)
    logits = SOUND[(POSTS["split"] != "train").to_numpy()]
    assert complaints(logits, posts) == []
    assert "into one class" in complaints(logits - logits.max() - 1, posts)[0]


INSIDE = POSTS.assign(
    fold=POSTS["fold"].where(~DEV, np.arange(len(POSTS)) % 5)
)  # dev in the folds, as the bundled profiles have it
LABELS = INSIDE.loc[DEV, "label"].to_numpy(dtype=int)


def complaints_about(probe: Floats, logits: Floats = SOUND, posts: pd.DataFrame = INSIDE, seed: int = 7) -> list[str]:
    """`probe` is what the final model gives dev, which it was trained on."""
    scores = posts[["split", "id", "fold"]].assign(backbone="a", head="label", seed=7, language="deu", logit=logits)
    rows = posts.loc[DEV, ["split", "id", "fold"]]
    probes = rows.assign(backbone="a", head="label", seed=seed, language="deu", logit=probe).sample(
        frac=1, random_state=0
    )
    return unsound(posts, scores, "deu", transductive=False, probes=probes)


@pytest.mark.parametrize("scale", [0.5, 1.0, 5.0])
def test_a_final_model_that_knows_what_it_has_seen_is_sound(scale: float) -> None:
    assert complaints_about(scale * SOUND[DEV]) == []  # as well as the folds
    assert complaints_about(scale * (SOUND[DEV] + 2 * LABELS - 1)) == []  # better
    assert complaints_about(8.0 * (2 * LABELS - 1)) == []  # by heart


@pytest.mark.parametrize("draw", range(20))
def test_random_noise_is_found(draw: int) -> None:
    """On 100 posts, as many as the smallest official dev has."""
    posts = make_posts(1000, seed=draw)
    dev = (posts["split"] == "dev").to_numpy()
    posts["fold"] = posts["fold"].where(~dev, np.arange(len(posts)) % 5)
    scores = posts[["split", "id", "fold"]].assign(
        backbone="a", head="label", seed=7, logit=member(posts, "a", noise=1.5).logits[:, 0]
    )
    probes = scores[dev].assign(logit=np.random.default_rng(draw).normal(size=int(dev.sum())))
    (found,) = unsound(posts, scores, "deu", transductive=False, probes=probes)
    assert "100 posts that it was trained on, its folds, which were not," in found
    assert unsound(posts, scores, "deu", transductive=False, probes=scores[dev]) == []


@pytest.mark.parametrize(
    ("probe", "complaint"),
    [
        (-SOUND[DEV], "a seed 7: the final model has AUC"),
        (0.001 * SOUND[DEV], "logits spread 0.1% as far as its folds', on posts that it was trained on"),
        (np.full(int(DEV.sum()), 0.3), "spread 0.0%"),
        (9 + SOUND[DEV], "puts all 30 posts of a sample that it was trained on into one class"),
        (SOUND[DEV] - 9, "into one class"),
    ],
)
def test_a_broken_model_is_found_where_dev_is_in_the_folds(probe: Floats, complaint: str) -> None:
    (found,) = complaints_about(probe)
    assert complaint in found


@pytest.mark.parametrize(("value", "complaint"), [(0.1, "spread 0.0%"), (9.0, "into one class")])
def test_where_dev_is_in_the_folds_test_is_looked_at_too(value: float, complaint: str) -> None:
    outside = (INSIDE["fold"] < 0).to_numpy()
    logits = replaced(outside, value if value < 1 else value + SOUND[outside])
    assert complaints(logits, INSIDE) and complaint in complaints(logits, INSIDE)[0]
    assert complaints(SOUND, INSIDE) == []


def test_folds_that_know_nothing_and_probes_outside_folds_accuse_nobody() -> None:
    noise = np.random.default_rng(0).normal(size=len(POSTS))
    assert complaints_about(np.random.default_rng(2).normal(size=int(DEV.sum())), noise) == []
    assert complaints_about(-SOUND[DEV], posts=POSTS) == []  # outside folds: `_far_below` has them in the scores
    assert complaints_about(-SOUND[DEV], seed=8) == []  # of another model


def test_few_posts_of_one_class_are_no_fault() -> None:
    """By chance a small dev holds one class alone, and a sound model says so."""
    few = DEV & (INSIDE["label"] == 1).to_numpy(dtype=bool, na_value=False) & (np.cumsum(DEV) < 12)
    scores = INSIDE[["split", "id", "fold"]].assign(backbone="a", head="label", seed=7, language="deu", logit=SOUND)
    probes = scores[few].assign(logit=4 + SOUND[few])
    assert unsound(INSIDE, scores, "deu", transductive=False, probes=probes) == []


@real_data
@pytest.mark.slow
def test_the_collapsed_published_model_is_found_in_every_language_and_no_other() -> None:
    data = Path(os.environ["POLAR_DATA_DIR"])
    if not (data.parent / "smash").is_dir():
        pytest.skip("the published scores do not lie beside the release")
    card = load_card("polar")
    scores = pd.concat([pd.read_parquet(file) for file in (data.parent / "smash").glob("*.parquet")])
    scores = scores.assign(head="label")
    found = {}
    for code in LANGUAGES:
        posts = assign_folds(read_posts(data, code, card), FoldSettings(fit_on="train"), 1)
        for complaint in unsound(posts, scores[scores["language"] == code], code, transductive=True):
            found.setdefault(complaint.partition(":")[0], set()).add(code)
    assert found == {"xlm-roberta-large seed 111": set(LANGUAGES)}
