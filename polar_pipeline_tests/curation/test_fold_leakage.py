"""Every way in which a held-out post could reach a model through a synthetic one is planted, and seen."""

import json

import pandas as pd
import pytest

from polar_pipeline.corpus.posts import REAL
from polar_pipeline.curation.fold_leakage import fold_leaks, likely_parents
from polar_pipeline.endpoint.formats import Reply
from polar_pipeline.synthesis.generate import planned_requests
from polar_pipeline.synthesis.perturb import perturbed_posts
from polar_pipeline.synthesis.posts import synthetic_posts
from polar_pipeline_tests.synthesis import made

POSTS = made.make_posts()
DEV, TEST = (POSTS.loc[POSTS["split"] == split, "id"].iloc[0] for split in ("dev", "test"))


def answered() -> pd.DataFrame:
    """All posts of a plan, as an obedient endpoint would answer it."""
    requests = planned_requests(POSTS, "deu", made.CARD, made.settings(), 0)
    replies: list[Reply | None] = [
        Reply(key=request.key, texts=tuple(f"{request.number} {at}" for at in range(len(request.labels))), outcome="ok",
              finish="stop", prompt_tokens=1, completion_tokens=1, dollars=0.0, counted=True)
        for request in requests
    ]  # fmt: skip
    return synthetic_posts(requests, replies, made.CARD)


def with_one(source: str, **changes: object) -> str:
    """What is said of a table in which the first post of this source is changed."""
    posts = answered()
    row = posts.index[posts["source"] == source][0]
    for name, value in changes.items():
        posts.loc[row, name] = value
    return fold_leaks(pd.concat([POSTS, posts], ignore_index=True))


def test_what_is_made_by_the_plan_or_offline_leaks_nothing() -> None:
    assert set(answered()["source"]) == {"direct", "rewrite", "contrast"}
    perturbed = perturbed_posts(POSTS, "deu", made.CARD, made.settings(), 0)
    for posts in (answered(), perturbed):
        assert posts["shown"].map(json.loads).map(len).min() > 0
        assert fold_leaks(pd.concat([POSTS, posts], ignore_index=True)) == ""
    assert fold_leaks(POSTS) == ""


@pytest.mark.parametrize(
    ("source", "where"),
    [
        ("direct", "parent_id"),
        ("direct", "shown"),
        ("rewrite", "parent_id"),
        ("rewrite", "shown"),
        ("contrast", "shown"),
    ],
)
@pytest.mark.parametrize(
    ("post", "said"), [(DEV, "not of train"), (TEST, "not of train"), ("deu_9999", "which no row has")]
)
def test_a_held_out_or_unknown_source_is_a_leak(source: str, where: str, post: str, said: str) -> None:
    found = with_one(source, **{where: json.dumps([post]) if where == "shown" else post})
    assert found.startswith("1 synthetic posts; the first, deu_syn_") and post in found and said in found


def test_a_pair_has_a_made_up_parent_but_no_held_out_one() -> None:
    assert with_one("contrast", parent_id="deu_pair_00001_0") == ""
    assert "not of train" in with_one("contrast", parent_id=DEV)


@pytest.mark.parametrize("source", ["direct", "rewrite", "contrast"])
def test_a_post_of_another_fold_is_a_leak(source: str) -> None:
    fold = int(answered()[lambda posts: posts["source"] == source]["fold"].iloc[0])
    assert f"is of fold {(fold + 1) % 5}, and was made from" in with_one(source, fold=(fold + 1) % 5)
    one_of_many = json.loads(answered()[lambda posts: posts["source"] == source]["shown"].iloc[0])
    other = POSTS.loc[(POSTS["fold"] == (fold + 1) % 5), "id"].iloc[0]
    assert f"was made from {other} of fold" in with_one(source, shown=json.dumps([*one_of_many, other]))


def test_posts_outside_train_or_the_folds_and_of_unknown_origin_are_leaks() -> None:
    assert "is not of train, or of no fold" in with_one("direct", split="dev")
    assert "is not of train, or of no fold" in with_one("direct", fold=-1)
    assert "does not say what it was made from" in with_one("direct", shown="[]")
    assert "do not say which posts" in fold_leaks(pd.concat([POSTS, answered().drop(columns="shown")]))


def test_a_post_of_a_file_may_be_of_unknown_origin_but_not_of_a_wrong_one() -> None:
    known = str(POSTS["id"].iloc[0])
    file = answered()[:1].assign(source="file", parent_id="", shown="[]")
    assert fold_leaks(pd.concat([POSTS, file])) == ""
    for changes, said in (
        ({"fold": -1}, "of no fold"),
        ({"parent_id": TEST}, "not of train"),
        ({"parent_id": "deu_9999"}, "which no row has"),
        ({"fold": 3, "shown": json.dumps([known])}, f"was made from {known} of fold 0"),
    ):
        assert said in fold_leaks(pd.concat([POSTS, file.assign(**changes)]))


def test_the_likely_parent_is_the_nearest_text_if_any_is_near() -> None:
    real = ["Der Hafen schläft heute wieder bis zum Mittag", "Wer singt, gewinnt beim Fest am Fluss", "@USER"]
    texts = ["Wer singt, verliert beim Fest am Fluss", "Zwölf Boxkämpfer jagen Viktor", "der hafen schläft wieder", ""]
    assert likely_parents(texts, real).tolist() == [1, -1, 0, -1]
    assert likely_parents([], real).tolist() == []


def test_a_synthetic_post_is_no_parent() -> None:
    made_up = str(answered()["id"].iloc[1])
    assert "which no row has" in with_one("direct", shown=json.dumps([made_up]))
    assert REAL not in set(answered()["source"])
