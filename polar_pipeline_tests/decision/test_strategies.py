"""Each strategy is recomputed with scipy and scikit-learn, and no name, order or flat member moves it."""

import random

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression

from polar_pipeline.decision.strategies import (
    Combination,
    MemberScores,
    combine,
    fit_combination,
    gather,
    scores_sha256,
    strategies,
)
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats, Ints
from polar_pipeline_tests.decision.made import log_loss

ALL = ["a", "equal", "simplex", "ridge"]
every_strategy = pytest.mark.parametrize("strategy", ALL)


def made(posts: int = 400, seed: int = 0) -> tuple[Ints, list[MemberScores]]:
    """Three members of different worth, scale and number of seeds; the last one knows little."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, posts)
    found = []
    for name, worth, scale, seeds in [("a", 1.0, 1.0, 1), ("b", 0.8, 6.0, 3), ("c", 0.3, 0.2, 2)]:
        shared = generator.normal(size=(posts, 1))  # seeds of a backbone err alike
        noise = shared + 0.5 * generator.normal(size=(posts, seeds))
        found.append(MemberScores(name, tuple(range(seeds)), scale * (worth * (2 * labels[:, None] - 1) + noise)))
    return labels, found


def probabilities(strategy: str, labels: Ints, members: list[MemberScores]) -> Floats:
    found: Floats = expit(combine(fit_combination(strategy, labels, members), members))
    return found


def temperature(labels: Ints, logits: Floats) -> float:
    found = minimize_scalar(
        lambda t: log_loss(labels, logits / np.exp(t)), bounds=(-4, 4), method="bounded", options={"xatol": 1e-9}
    )
    return float(np.exp(found.x))


def calibrated(labels: Ints, members: list[MemberScores]) -> Floats:
    """Each member's mean over seeds, with one temperature for all its seeds; (posts, members)."""
    columns = []
    for member in members:
        pooled = temperature(np.repeat(labels, len(member.seeds)), member.logits.ravel())
        columns.append(member.logits.mean(axis=1) / pooled)
    return np.stack(columns, axis=1)


def unscaled(combination: Combination) -> Floats:
    """Simplex weights before the last temperature divided them: they summed to 1."""
    weights: Floats = combination.weights / combination.weights.sum()
    return weights


def test_what_can_be_tried_goes_from_simple_to_rich() -> None:
    _, members = made()
    assert strategies(members) == ["a", "b", "c", "equal", "simplex", "ridge"]
    assert strategies(members[1:2]) == ["b"]


def test_single_is_that_members_calibrated_logit_and_nothing_else() -> None:
    labels, members = made()
    combination = fit_combination("b", labels, members)
    assert combination.intercept == 0
    np.testing.assert_array_equal(combination.weights != 0, [False, True, False])
    column = calibrated(labels, members)[:, 1]
    np.testing.assert_allclose(combine(combination, members), column / temperature(labels, column), rtol=1e-4)


def test_equal_is_the_calibrated_mean_of_the_calibrated_members() -> None:
    labels, members = made()
    combination = fit_combination("equal", labels, members)
    assert combination.intercept == 0 and len(set(combination.weights)) == 1
    mean = calibrated(labels, members).mean(axis=1)
    np.testing.assert_allclose(combine(combination, members), mean / temperature(labels, mean), rtol=1e-4)


def test_ridge_is_scikit_learns_logistic_regression_on_the_calibrated_members() -> None:
    labels, members = made()
    columns = calibrated(labels, members)
    model = LogisticRegression(C=1.0, solver="lbfgs", tol=1e-10, max_iter=1000).fit(columns, labels)
    scores = model.decision_function(columns)
    expected = scores / temperature(labels, scores)
    np.testing.assert_allclose(probabilities("ridge", labels, members), expit(expected), atol=1e-5)


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from([0.1, 1.0, 5.0]))
def test_simplex_weights_are_the_best_mean_there_is(seed: int, scale: float) -> None:
    labels, members = made(60, seed)
    members = [member._replace(logits=scale * member.logits) for member in members]
    combination = fit_combination("simplex", labels, members)
    weights = unscaled(combination)
    assert (weights >= 0).all() and combination.intercept == 0
    columns = calibrated(labels, members)
    found = log_loss(labels, combine(combination, members))
    best = minimize(  # weights of any sum: the temperature
        lambda w: log_loss(labels, columns @ w), np.full(3, 1 / 3), bounds=[(0, None)] * 3, options={"ftol": 1e-12}
    )
    assume(best.fun > 0.02)  # below, labels are all but separable, and the best weights know no end
    # temperatures end at e^4 and e^-4: beyond, the direction of the weights is the best one and their length is not
    assume(combination.temperatures.max() < 54 and combination.weights.sum() < 54)
    assert found <= best.fun + 1e-4


def test_simplex_ends_with_no_more_log_loss_than_the_equal_average() -> None:
    """Both after their last temperature, which is how they decide; equal weights are a point of the simplex."""
    labels, members = made(2000)
    simplex, equal = (
        log_loss(labels, combine(fit_combination(strategy, labels, members), members))
        for strategy in ("simplex", "equal")
    )
    assert simplex <= equal + 1e-6


@every_strategy
def test_probabilities_end_calibrated(strategy: str) -> None:
    labels, members = made(seed=3)
    scores = combine(fit_combination(strategy, labels, members), members)
    assert temperature(labels, scores) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("strategy", "tolerance"), [("equal", 1e-9), ("ridge", 0.01)])
def test_copies_under_other_names_change_almost_nothing(strategy: str, tolerance: float) -> None:
    labels, members = made(
        2000
    )  # the ridge's penalty is shared among copies, which matters less the more posts there are
    copies = [member._replace(backbone=f"{member.backbone}_copy") for member in members]
    before = probabilities(strategy, labels, members)
    np.testing.assert_allclose(probabilities(strategy, labels, members + copies), before, atol=tolerance)
    if strategy == "ridge":  # among equals one more vote counts, by design; ridge also bears the copy of one member
        np.testing.assert_allclose(probabilities(strategy, labels, [*members, copies[0]]), before, atol=tolerance)


@every_strategy
def test_a_copy_of_the_only_member_decides_as_it_does_alone(strategy: str) -> None:
    labels, members = made()
    alone = probabilities("b", labels, [members[1]])
    doubled = probabilities(strategy, labels, [members[1]._replace(backbone="a"), members[1]])
    np.testing.assert_array_equal(np.argsort(doubled, kind="stable"), np.argsort(alone, kind="stable"))
    if strategy != "ridge":  # whose intercept and penalty one member alone does not have
        np.testing.assert_allclose(doubled, alone, atol=1e-9)


@every_strategy
@settings(max_examples=15)
@given(st.integers(0, 10_000), st.permutations(range(3)))
def test_the_order_of_members_does_not_matter(strategy: str, seed: int, order: list[int]) -> None:
    labels, members = made(80, seed)
    shuffled = [members[place] for place in order]
    np.testing.assert_allclose(
        probabilities(strategy, labels, shuffled), probabilities(strategy, labels, members), atol=1e-6
    )


@every_strategy
@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_finite_and_no_worse_than_a_coin(strategy: str, label: int) -> None:
    _, members = made(50)
    labels = np.full(50, label)
    scores = combine(fit_combination(strategy, labels, members), members)
    assert np.isfinite(scores).all()
    assert log_loss(labels, scores) <= np.log(2) + 1e-3  # the highest temperature leaves a little of wrong scores


@every_strategy
@pytest.mark.parametrize("value", [0.0, 0.7, -40.0])
def test_a_constant_member_is_finite_and_harms_no_ranking(strategy: str, value: float) -> None:
    labels, members = made()
    flat = MemberScores("flat", (0,), np.full((len(labels), 1), value))
    found = probabilities(strategy, labels, [*members, flat])
    assert np.isfinite(found).all()
    assert spearmanr(found, probabilities(strategy, labels, members)).statistic > 0.9999


@every_strategy
@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 1), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=1, max_size=12))
def test_anything_gives_finite_probabilities(strategy: str, rows: list[tuple[int, float, float]]) -> None:
    labels, first, second = (np.array(column) for column in zip(*rows, strict=True))
    members = [MemberScores("a", (0,), first[:, None]), MemberScores("b", (0,), second[:, None])]
    found = probabilities(strategy, labels, members)
    assert np.isfinite(found).all() and ((found >= 0) & (found <= 1)).all()


@pytest.mark.parametrize("strategy", ["simplex", "ridge"])
def test_many_members_that_are_nearly_copies_decide_as_their_average(strategy: str) -> None:
    """Which of 17 gets the weight may be chance; what they say together may not, so two halves of the posts agree."""
    generator = np.random.default_rng(7)
    labels = generator.integers(0, 2, 1200)
    shared = 2.0 * labels - 1 + generator.normal(size=1200)
    noise = 0.1 * generator.normal(size=(17, 1200, 1))
    members = [MemberScores(f"m{place}", (0,), shared[:, None] + own) for place, own in enumerate(noise)]
    half = np.arange(1200) < 600
    found = {}
    for way, rows in (("one", half), ("other", ~half), ("equal", half)):
        name = "equal" if way == "equal" else strategy
        fitted = fit_combination(name, labels[rows], [member.rows(rows) for member in members])
        found[way] = combine(fitted, members)
        assert np.isfinite(found[way]).all() and np.abs(fitted.weights).max() < 2
    for way in ("one", "other"):
        assert spearmanr(found[way], found["equal"]).statistic > 0.99
    unseen = log_loss(labels[~half], found["one"][~half])
    # 18 parameters that are fitted to 600 posts without any penalty cost 18 / (2 * 600) on average
    assert unseen < log_loss(labels[~half], found["equal"][~half]) + 0.015


def make_posts(train: int = 600, dev: int = 100, test: int = 100) -> pd.DataFrame:
    """A few posts whose ids are once per split only."""
    split = np.repeat(["train", "dev", "test"], [train, dev, test])
    label = pd.array(np.random.default_rng(0).integers(0, 2, len(split)), dtype="Int8")
    label[split == "test"] = pd.NA
    fold = np.where(split == "train", np.arange(len(split)) % 5, -1)
    ids = np.concatenate([np.arange(size) for size in (train, dev, test)]).astype(str)  # ids are once per split only
    return pd.DataFrame({"id": ids, "split": split, "fold": fold, "label": label})


def make_scores(posts: pd.DataFrame, backbones: dict[str, int]) -> pd.DataFrame:
    """Every logit is another number, so that a row in the wrong place is seen."""
    keys = [(backbone, seed) for backbone, seeds in backbones.items() for seed in range(seeds)]
    tables = [posts[["split", "id"]].assign(backbone=backbone, head="label", seed=seed) for backbone, seed in keys]
    scores = pd.concat(tables, ignore_index=True)
    return scores.assign(logit=np.arange(len(scores), dtype=float))


@given(st.randoms(use_true_random=False))
def test_the_order_of_rows_and_of_backbones_does_not_matter(shuffler: random.Random) -> None:
    posts = make_posts(4, 3, 3)
    scores = make_scores(posts, {"b": 2, "a": 1})
    order, names = list(range(len(scores))), ["b", "a"]
    shuffler.shuffle(order)
    shuffler.shuffle(names)
    one, two = gather(posts, scores.iloc[order], names, "x")
    assert (one.backbone, one.seeds, two.backbone, two.seeds) == ("a", (0,), "b", (0, 1))
    np.testing.assert_array_equal(one.logits[:, 0], np.arange(20, 30))
    np.testing.assert_array_equal(two.logits, np.arange(20).reshape(2, 10).T)


def test_rows_follow_the_posts_and_backbones_that_were_not_asked_for_stay_out() -> None:
    posts = make_posts(4, 3, 3)
    scores = make_scores(posts, {"a": 1, "b": 1})
    (found,) = gather(posts.iloc[[7, 2, 4]], scores, ["b"], "x")
    assert found.backbone == "b"
    assert found.logits.ravel().tolist() == [17, 12, 14]
    assert found.rows(np.array([True, False, True])).logits.ravel().tolist() == [17, 14]


@pytest.mark.parametrize("gap", ["no row", "nan", "infinite", "one seed of two"])
def test_a_gap_is_named_by_backbone_language_and_post(gap: str) -> None:
    posts = make_posts(4, 3, 3).assign(id=[f"x_{place}" for place in range(10)])
    scores = make_scores(posts, {"sound": 2, "holed": 2})
    place = 2 * 10 + 6  # x_6 in the first seed of the second backbone; its next seed is ten rows on
    holed = {
        "no row": scores.drop(index=[place, place + 10]),
        "nan": scores.assign(logit=scores["logit"].where(scores.index != place)),
        "infinite": scores.assign(logit=scores["logit"].where(scores.index != place, -np.inf)),
        "one seed of two": scores.drop(index=place + 10),
    }[gap]
    with pytest.raises(InputError, match=r"'holed' for swa lack a finite logit for 1 posts, first 'x_6'"):
        gather(posts, holed, ["holed", "sound"], "swa")


def test_a_backbone_without_scores_is_left_out_and_none_at_all_is_an_error() -> None:
    posts = make_posts(4, 3, 3)
    scores = make_scores(posts, {"a": 1})
    assert [found.backbone for found in gather(posts, scores, ["silent", "a"], "swa")] == ["a"]
    with pytest.raises(InputError, match="no backbone has scores for swa"):
        gather(posts, scores, ["silent"], "swa")


def test_each_head_is_a_member_after_the_main_one() -> None:
    posts = make_posts(4, 3, 3)
    scores = make_scores(posts, {"b": 1, "a": 2})
    types = scores.assign(head="types", logit=scores["logit"] + 100)
    found = gather(posts, pd.concat([types, scores]), ["a", "b"], "x")
    assert [member.name for member in found] == ["a", "a.types", "b", "b.types"] == strategies(found)[:4]
    assert [member.seeds for member in found] == [(0, 1), (0, 1), (0,), (0,)]
    np.testing.assert_array_equal(found[1].logits, found[0].logits + 100)
    assert found[1].rows(np.array([True] + 9 * [False])).name == "a.types"
    with pytest.raises(InputError, match=r"'a\.types' for x lack.*: materialize a_dev_probabilities for x again"):
        gather(posts, pd.concat([scores, types[12:]]), ["a", "b"], "x")


def test_the_hash_of_scores_is_that_of_every_cell_in_any_order() -> None:
    posts = make_posts(4, 3, 3).assign(fold=0)
    scores = make_scores(posts, {"b": 2, "a": 1}).assign(fold=0)
    hashes = scores_sha256(scores)
    assert sorted(hashes) == ["a", "b"] and hashes["a"] != hashes["b"]
    assert scores_sha256(scores.sample(frac=1, random_state=0)) == hashes
    for column, value in (("logit", 0.5), ("head", "types"), ("seed", 9), ("id", "z"), ("split", "x"), ("fold", 1)):
        changed = scores.copy()
        changed[column] = changed[column].astype(object)
        changed.loc[changed["backbone"] == "b", column] = value
        other = scores_sha256(changed)
        assert other["a"] == hashes["a"] and other["b"] != hashes["b"], column
