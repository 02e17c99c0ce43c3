"""Scores are laid out the same whatever their order, and gaps are named."""

import random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.decision.members import gather, scores_sha256
from polar_pipeline.errors import InputError


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
    tables = [posts[["split", "id"]].assign(backbone=backbone, seed=seed) for backbone, seed in keys]
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


def test_the_hash_of_scores_is_that_of_every_cell_in_any_order() -> None:
    posts = make_posts(4, 3, 3).assign(fold=0)
    scores = make_scores(posts, {"b": 2, "a": 1}).assign(fold=0)
    hashes = scores_sha256(scores)
    assert sorted(hashes) == ["a", "b"] and hashes["a"] != hashes["b"]
    assert scores_sha256(scores.sample(frac=1, random_state=0)) == hashes
    for column, value in (("logit", 0.5), ("seed", 9), ("id", "z"), ("split", "x"), ("fold", 1)):
        changed = scores.copy()
        changed[column] = changed[column].astype(object)
        changed.loc[changed["backbone"] == "b", column] = value
        other = scores_sha256(changed)
        assert other["a"] == hashes["a"] and other["b"] != hashes["b"], column
