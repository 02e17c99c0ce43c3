"""Decisions come from out-of-fold scores alone, say how good they are, and apply to every row."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from polar_pipeline.decision.decide import decide, nested_table
from polar_pipeline.decision.predictions import predict
from polar_pipeline.decision.record import Decision
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.intervals import confusion
from polar_pipeline.metrics.scores import macro_f1
from polar_pipeline.settings.decision import DecisionSettings
from polar_pipeline.settings.profile import Profile

PROFILE = Profile(name="test", description="", seed=3, decision=DecisionSettings(resamples=40))


def make_posts(posts: int = 300, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    split = np.repeat(["train", "dev", "test"], [posts, posts // 10, posts // 2])
    total = len(split)
    fold = np.where(split == "test", -1, np.arange(total) % 5)
    label = pd.array(np.where(split == "test", -1, generator.integers(0, 2, total)), dtype="Int8")
    label[split == "test"] = pd.NA
    return pd.DataFrame({"id": [f"x_{i}" for i in range(total)], "split": split, "fold": fold, "label": label})


def make_scores(posts: pd.DataFrame, backbone: str = "one", scale: float = 1.0, seed: int = 1) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    signal = posts["label"].fillna(0).to_numpy(dtype=float) * 2 - 1
    logit = scale * (signal + generator.normal(size=len(posts)))
    return posts[["id", "split", "fold"]].assign(backbone=backbone, head="label", seed=0, language="x", logit=logit)


def decided(posts: pd.DataFrame, scores: pd.DataFrame, backbones: tuple[str, ...] = ("one",)) -> Decision:
    return decide("x", posts, scores, PROFILE, dict.fromkeys(backbones, "0" * 64), "f")


def test_the_probability_is_the_documented_formula() -> None:
    posts = make_posts()
    scores = pd.concat([make_scores(posts), make_scores(posts, "two", scale=5, seed=2)])
    decision = decided(posts, scores, ("two", "one"))
    assert [member.backbone for member in decision.members] == ["one", "two"]
    predictions = predict(decision, posts, scores)
    total = decision.intercept + sum(
        member.weight * scores[scores["backbone"] == member.backbone]["logit"].to_numpy() / member.temperature
        for member in decision.members
    )
    np.testing.assert_allclose(predictions["probability"], expit(total))
    assert (predictions["prediction"] == (predictions["probability"] >= decision.threshold)).all()
    assert predictions["id"].tolist() == posts["id"].tolist()


def test_scores_of_another_scale_make_the_same_decision() -> None:
    posts = make_posts()
    one, five = decided(posts, make_scores(posts)), decided(posts, make_scores(posts, scale=5))
    assert five.members[0].temperature == pytest.approx(5 * one.members[0].temperature, rel=1e-4)
    assert five.threshold == pytest.approx(one.threshold, abs=1e-4)


def test_two_members_beat_each_alone() -> None:
    posts = make_posts(3000)
    scores = pd.concat(
        [make_scores(posts, name, scale, seed) for seed, (name, scale) in enumerate([("a", 1), ("b", 9)])]
    )
    both = decided(posts, scores, ("a", "b")).out_of_fold.value
    assert both > max(decided(posts, scores, (name,)).out_of_fold.value for name in "ab") + 0.02


def test_scores_of_test_and_labels_outside_folds_move_nothing() -> None:
    posts = make_posts()
    scores = make_scores(posts)
    changed = scores.assign(logit=scores["logit"].where(scores["split"] != "test", -3 * scores["logit"]))
    made, moved = decided(posts, scores), decided(posts, changed)
    assert moved.scores != made.scores  # it names the scores that it was made from
    assert moved.model_copy(update={"scores": made.scores}) == made
    without_dev = posts.assign(fold=posts["fold"].where(posts["split"] != "dev", -1))
    dev = without_dev["split"] == "dev"
    flipped = without_dev.assign(label=without_dev["label"].where(~dev, 1 - without_dev["label"]))
    test = posts["split"] == "test"
    labelled = without_dev.assign(label=without_dev["label"].where(~test, 1))
    assert decided(flipped, scores) == decided(labelled, scores) == decided(without_dev, scores)


def test_a_copy_of_a_member_and_noise_do_not_lower_the_estimate_beyond_its_interval() -> None:
    posts = make_posts(1500)
    one = make_scores(posts)
    alone = decided(posts, one).out_of_fold
    noise = one.assign(backbone="noise", logit=np.random.default_rng(8).normal(size=len(posts)))
    for more in (noise, one.assign(backbone="copy")):
        found = decided(posts, pd.concat([one, more]), ("one", str(more["backbone"].iloc[0])))
        assert found.out_of_fold.value > alone.low + 0.5 * (alone.value - alone.low)


def test_an_inverted_member_is_left_out_and_named() -> None:
    posts = make_posts(1500)
    wrong = make_scores(posts, "wrong", seed=2).assign(logit=lambda table: -table["logit"])
    found = decided(posts, pd.concat([make_scores(posts), wrong]), ("one", "wrong"))
    assert [(model.backbone, "inverted" in model.reason) for model in found.excluded] == [("wrong", True)]
    assert [member.backbone for member in found.members] == ["one"]
    assert found.out_of_fold == decided(posts, make_scores(posts)).out_of_fold


def test_without_folds_dev_decides_and_the_interval_is_wide() -> None:
    posts = make_posts(1000)
    few = posts.assign(fold=-1, text="post " + posts["id"])
    found, folded = decided(few, make_scores(posts)), decided(posts, make_scores(posts))
    assert found.out_of_fold.posts == 100
    width = [item.out_of_fold.high - item.out_of_fold.low for item in (found, folded)]
    assert width[0] > 2.5 * width[1]
    dev_alone = make_scores(posts)[lambda scores: scores["split"] != "train"]
    alone = decided(few, dev_alone)
    assert alone.scores != found.scores and alone.model_copy(update={"scores": found.scores}) == found
    assert set(predict(alone, few, dev_alone)["split"]) == {"dev", "test"}
    shuffled = few.sample(frac=1, random_state=0)
    assert decided(shuffled, make_scores(posts)) == found


def test_the_nested_predictions_come_back_with_their_posts() -> None:
    posts = make_posts(301)
    decision = decided(posts, make_scores(posts))
    table = nested_table(decision, posts.sample(frac=1, random_state=0))
    assert len(table) == decision.out_of_fold.posts
    labels, predictions = (table[column].to_numpy(dtype=int) for column in ("label", "prediction"))
    assert confusion(labels, predictions) == decision.confusion
    assert macro_f1(labels, predictions) == pytest.approx(decision.out_of_fold.value)


def test_order_of_rows_and_members_does_not_matter() -> None:
    posts = make_posts()
    scores = pd.concat([make_scores(posts), make_scores(posts, "two", seed=2)])
    expected = decided(posts, scores, ("one", "two"))
    again = decided(posts, scores.sample(frac=1, random_state=0), ("two", "one"))
    assert again.model_dump_json() == expected.model_dump_json()


def test_the_nested_estimate_of_noise_is_not_flattered() -> None:
    posts = make_posts(400)
    values = []
    for seed in range(20):
        noise = make_scores(posts, seed=seed).assign(logit=np.random.default_rng(seed).normal(size=len(posts)))
        values.append(decided(posts, noise).out_of_fold.value)
    assert np.mean(values) < 0.51


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    population = make_posts(20_000, seed=9)
    big = predict(decided(population, make_scores(population)), population, make_scores(population))
    rows = population["fold"] >= 0
    truth = macro_f1(population["label"][rows].to_numpy(dtype=int), big["prediction"][rows].to_numpy())
    held = 0
    for seed in range(20):
        posts = make_posts(400, seed)
        estimate = decided(posts, make_scores(posts, seed=100 + seed)).out_of_fold
        held += estimate.low <= truth <= estimate.high
    assert held >= 16


def test_a_missing_or_infinite_score_is_named() -> None:
    posts = make_posts()
    scores = make_scores(posts)
    with pytest.raises(InputError, match=r"'one' for x lack a finite logit for 1 posts, first 'x_7'"):
        decided(posts, scores[scores["id"] != "x_7"])
    with pytest.raises(InputError, match="first 'x_8'"):
        decided(posts, scores.assign(logit=scores["logit"].where(scores["id"] != "x_8", np.inf)))


def test_a_decision_survives_the_disk() -> None:
    posts = make_posts()
    decision = decided(posts, make_scores(posts))
    assert Decision.model_validate_json(decision.model_dump_json()) == decision
