"""A plan shows training posts of one fold per request and nothing else, and asks for what the settings say."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polar_pipeline.endpoint.formats import STRATEGIES
from polar_pipeline.errors import InputError
from polar_pipeline.synthesis.generate import planned_requests
from polar_pipeline.synthesis.plan import LabelBalancer, TypeBalancer, asked_types, plan, prompt_pool
from polar_pipeline_tests.synthesis import made

POSTS = made.make_posts()
TYPES = made.CARD.auxiliary.types


def with_types(posts: pd.DataFrame, counts: dict[str, int]) -> pd.DataFrame:
    """The posts with so many positive training posts of each type, spread over the folds."""
    positive = posts.index[(posts["label"] == 1).fillna(False) & (posts["split"] == "train")]
    columns = {}
    for name in TYPES:
        values = pd.Series(pd.array([0] * len(posts), dtype="Int8"), index=posts.index)
        values[positive[: counts.get(name, 0)]] = 1
        columns[name] = values
    return posts.assign(**columns)


def test_only_training_posts_in_folds_may_be_shown() -> None:
    assert set(prompt_pool(POSTS)["split"]) == {"train"}
    dev_in_folds = POSTS.assign(fold=POSTS["fold"].where(POSTS["split"] != "dev", 1))
    synthetic = POSTS.head(5).assign(id=[f"s{i}" for i in range(5)], source="direct")
    assert len(prompt_pool(pd.concat([dev_in_folds, synthetic]))) == 200
    shown = {post for one in plan(dev_in_folds, made.CARD, made.settings(), 0) for post in one.shown["id"]}
    assert shown <= set(POSTS.loc[POSTS["split"] == "train", "id"])


def test_what_a_request_shows_is_of_its_fold() -> None:
    folds = dict(zip(POSTS["id"], POSTS["fold"], strict=True))
    planned = plan(POSTS, made.CARD, made.settings(posts=300), 0)
    assert all({folds[post] for post in one.shown["id"]} == {one.fold} for one in planned)
    assert {one.fold for one in planned} == set(range(5))


def test_rewriting_shows_a_post_of_each_label_asked_for() -> None:
    labels = dict(zip(POSTS["id"], POSTS["label"], strict=True))
    for one in plan(POSTS, made.CARD, made.settings(shares=(0, 1, 0)), 0):
        assert tuple(labels[post] for post in one.shown["id"]) == one.labels


def test_pairs_are_opposite_in_label() -> None:
    for one in plan(POSTS, made.CARD, made.settings(shares=(0, 0, 1)), 0):
        assert one.labels == (1, 0) * (len(one.labels) // 2)


@settings(max_examples=25)
@given(
    st.integers(1, 400),
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 1)),
    st.integers(1, 12),
)
def test_as_many_posts_as_wanted_are_asked_for(
    posts: int, shares: tuple[float, float, float], per_request: int
) -> None:
    whole = sum(shares)
    shares = (shares[0] / whole, shares[1] / whole, shares[2] / whole)
    chosen = made.settings(posts=posts, shares=shares, posts_per_request=per_request)
    planned = plan(POSTS, made.CARD, chosen, 0)
    found = {strategy: sum(len(e.labels) for e in planned if e.strategy == strategy) for strategy in STRATEGIES}
    assert sum(found.values()) == posts and found["contrast"] % 2 == 0
    for strategy, share in zip(STRATEGIES, shares, strict=True):
        assert abs(found[strategy] - share * posts) <= 2 * max(per_request, 2)
    assert max((len(one.labels) for one in planned), default=0) <= max(per_request, 2)


@given(
    st.integers(0, 300),
    st.integers(1, 300),
    st.floats(0.05, 0.95),
    st.lists(st.tuples(st.booleans(), st.integers(1, 8))),
)
def test_labels_bring_the_share_as_near_as_they_can_at_every_moment(
    positives: int, negatives: int, share: float, dealt: list[tuple[bool, int]]
) -> None:
    real = np.repeat([1, 0], [positives, negatives])
    balance, labels = LabelBalancer(real, share), list[int]()
    for paired, size in dealt:
        made_now = balance.pairs(size) if paired else balance.labels(size)
        assert len(made_now) == (2 * size if paired else size) and (not paired or made_now == (1, 0) * size)
        labels += made_now
        if not any(paired for paired, _ in dealt):
            least, most = round(0.1 * len(labels)), round(0.9 * len(labels))
            wanted = np.clip(round(share * (len(real) + len(labels)) - positives), least, most)
            assert abs(sum(labels) - wanted) <= 1  # halves round to even


@pytest.mark.parametrize(
    ("positive", "posts", "expected"), [(0.1, 300, 230), (0.9, 300, 70), (0.5, 300, 150), (0.1, 100, 90)]
)
def test_a_whole_plan_has_the_labels_that_are_lacking_pairs_included(
    positive: float, posts: int, expected: int
) -> None:
    label = pd.array((np.arange(len(POSTS)) % 10 < 10 * positive).astype(int), dtype="Int8")
    planned = plan(POSTS.assign(label=label), made.CARD, made.settings(posts=posts), 0)
    assert sum(sum(one.labels) for one in planned) == expected


def test_a_plan_for_more_posts_begins_as_one_for_fewer_does() -> None:
    def keys(posts: int) -> list[str]:
        return [request.key for request in planned_requests(POSTS, "deu", made.CARD, made.settings(posts=posts), 0)]

    few, many = keys(300), keys(607)
    assert len(set(few) & set(many)) >= len(few) - 2  # but for the last ones, which may be smaller


@pytest.mark.parametrize("strategy", ["direct", "contrast"])
def test_topics_that_train_lacks_come_more_often_in_every_strategy(strategy: str) -> None:
    posts = POSTS.assign(political=pd.array([1] * len(POSTS), dtype="Int8"))
    planned = plan(posts, made.CARD, made.settings(posts=3000), 0)
    topics = Counter(one.topic for one in planned if one.strategy == strategy)
    assert set(topics) == set(made.CARD.auxiliary.types)
    assert topics.most_common()[-1][0] == "political"
    lacking = Counter(one.topic for one in planned if one.strategy == strategy and one.fold == 0)
    assert len(lacking) >= 4  # no fold has its own topics


def test_files_without_types_have_no_topics() -> None:
    bare = POSTS.drop(columns=list(made.CARD.auxiliary.columns))
    assert {one.topic for one in plan(bare, made.CARD, made.settings(), 0)} == {""}
    assert asked_types(bare, made.CARD, made.settings()) == {}


@settings(max_examples=60)
@given(st.lists(st.integers(0, 400), min_size=5, max_size=5), st.lists(st.integers(0, 6), min_size=1, max_size=200))
def test_types_are_dealt_by_what_they_lack_and_no_fold_has_its_own(counts: list[int], positives: list[int]) -> None:
    pool = pd.DataFrame({name: np.arange(400) < count for name, count in zip(TYPES, counts, strict=True)}).astype(
        "Int8"
    )
    balance, folds = TypeBalancer(pool.assign(label=1), made.CARD), 5
    owed, had = Counter[str](), Counter[str]()
    owed_in, had_in = Counter[tuple[int, str]](), Counter[tuple[int, str]]()
    for number, size in enumerate(positives):
        shares, place = balance.shares(), number % folds
        assert sum(shares.values()) == pytest.approx(1) and min(shares.values()) >= 0.1 / len(TYPES) - 1e-9
        real = dict(zip(TYPES, counts, strict=True))
        if not number:  # the fewer posts, the larger the share; equal numbers are equal shares
            assert all((real[a] < real[b]) == (shares[a] > shares[b] + 1e-12) for a in TYPES for b in TYPES)
        chosen = balance.deal(place, size)
        for name, share in shares.items():
            owed[name] += share  # type: ignore[assignment]
            owed_in[place, name] += share  # type: ignore[assignment]
        had[chosen] += 1
        had_in[place, chosen] += 1
    assert max(abs(owed[name] - had[name]) for name in TYPES) < 3
    assert max(abs(owed_in[key] - had_in[key]) for key in owed_in) < 3


def test_what_a_language_lacks_is_asked_for_and_counted() -> None:
    posts = with_types(POSTS, {"political": 60, "racial/ethnic": 50, "religious": 30, "other": 10})
    chosen = made.settings(posts=3000)
    asked = asked_types(posts, made.CARD, chosen)
    assert list(asked) == list(TYPES)
    # in the end all types have about as many, the real ones included
    whole = [asked[name] + count for name, count in zip(TYPES, (60, 50, 30, 0, 10), strict=True)]
    assert max(whole) - min(whole) < 40
    planned = plan(posts, made.CARD, chosen, 0)
    assert sum(asked.values()) == sum(sum(one.labels) for one in planned if one.strategy != "rewrite")
    assert asked_types(posts, made.CARD, made.settings(source="offline")) == {}


@settings(max_examples=25)
@given(
    st.integers(1, 60), st.booleans(), st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)), st.integers(1, 9)
)
def test_only_the_rarer_label_is_asked_for_where_that_is_wanted(
    rare: int, positive: bool, shares: tuple[float, float, float], per_request: int
) -> None:
    common = np.arange(len(POSTS)) % 61 >= max(rare // 2, 1)  # the rarer ones are at most half
    posts = POSTS.assign(label=pd.array((common != positive).astype(int), dtype="Int8"))
    whole = sum(shares) or 1.0
    shares = (shares[0] / whole, shares[1] / whole, shares[2] / whole) if sum(shares) else (0.0, 0.0, 1.0)
    if min(posts["label"].value_counts().reindex([0, 1], fill_value=0)) < 60:
        shares = (1.0, 0.0, 0.0)  # too few to rewrite
    chosen = made.settings(posts=50, shares=shares, posts_per_request=per_request, minority_only=True)
    planned = plan(posts, made.CARD, chosen, 0)
    rarer = int(2 * prompt_pool(posts)["label"].sum() <= len(prompt_pool(posts)))
    assert {label for one in planned for label in one.labels} == {rarer}
    assert sum(len(one.labels) for one in planned) == 50 and "contrast" not in {one.strategy for one in planned}


KINDS = with_types(POSTS, {"political": 40, "racial/ethnic": 25, "religious": 12, "gender/sexual": 3})


@pytest.mark.parametrize("by", ["random", "nearest"])
@settings(max_examples=10)
@given(few=st.integers(12, 120), more=st.integers(0, 120), seed=st.integers(0, 3), minority=st.booleans())
def test_a_plan_is_the_same_every_time_of_one_fold_and_the_beginning_of_a_longer_one(
    by: str, few: int, more: int, seed: int, minority: bool
) -> None:
    def planned(posts: int, order: int) -> list[tuple[object, ...]]:
        chosen = made.settings(posts=posts, examples_by=by, minority_only=minority)
        table = KINDS.sample(frac=1, random_state=order)
        return [(*one[:5], tuple(one.shown["id"])) for one in plan(table, made.CARD, chosen, seed)]

    short, long = planned(few, 0), planned(few + more, 1)
    assert short == planned(few, 2)
    assert short[:-3] == long[: max(len(short) - 3, 0)]  # the last ones may be smaller
    folds = dict(zip(KINDS["id"], KINDS["fold"], strict=True))
    assert all({folds[post] for post in shown} == {fold} for _, _, fold, _, _, shown in long)


def test_nearest_examples_are_around_a_post_of_the_label_and_type_and_of_both_labels() -> None:
    words = {"political": "Regierung Wahl Partei", "religious": "Kirche Moschee Gebet"}
    texts = KINDS["text"].copy()
    for place, (name, what) in enumerate(words.items()):
        rows = (KINDS[name] == 1).to_numpy(dtype=bool)
        texts[rows] = [f"{what} Nummer {number}" for number in range(rows.sum())]
        others = KINDS.index[((KINDS["label"] == 0) & (KINDS["split"] == "train")).fillna(False)][place::2]
        texts[others] = [f"{what} gestern {number}" for number in range(len(others))]
    posts = KINDS.assign(text=texts, political=KINDS["political"].where(KINDS["religious"] == 0, 0))
    chosen = made.settings(posts=300, examples_by="nearest", shares=(0.7, 0.0, 0.3))
    seen = Counter[str]()
    for one in plan(posts, made.CARD, chosen, 0):
        assert len(one.shown) == 4 and sorted(one.shown["label"]) == [0, 0, 1, 1]
        if one.topic in words and 2 * sum(one.labels) >= len(one.labels):
            seen[one.topic] += 1
            near = one.shown["text"].str.startswith(words[one.topic])
            assert near[one.shown["label"] == 1].any() and near.sum() >= 3
    assert min(seen[name] for name in words) > 3
    random = plan(posts, made.CARD, chosen.model_copy(update={"examples_by": "random"}), 0)
    assert [one[:5] for one in random] == [one[:5] for one in plan(posts, made.CARD, chosen, 0)]


def test_copies_of_a_post_are_shown_once_and_few_posts_are_all_shown() -> None:
    copies = KINDS.assign(text=KINDS["text"].where(KINDS["label"] == 0, "immer derselbe Text"))
    for one in plan(copies, made.CARD, made.settings(examples_by="nearest", shares=(1, 0, 0)), 0):
        assert (one.shown["text"] == "immer derselbe Text").sum() == 1 and len(one.shown) == 4
    few = KINDS[(KINDS["split"] != "train") | (KINDS.index < 12)]
    for one in plan(few, made.CARD, made.settings(examples_by="nearest", examples=20, shares=(1, 0, 0)), 0):
        assert len(one.shown) == (few["fold"] == one.fold).sum()


def test_the_same_posts_in_any_order_make_the_same_plan() -> None:
    one = plan(POSTS, made.CARD, made.settings(), 3)
    other = plan(POSTS.sample(frac=1, random_state=0), made.CARD, made.settings(), 3)
    assert [(e.labels, e.fold, tuple(e.shown["id"])) for e in one] == [
        (e.labels, e.fold, tuple(e.shown["id"])) for e in other
    ]


def test_posts_of_one_label_are_refused() -> None:
    with pytest.raises(InputError, match="no training posts of both labels"):
        plan(POSTS.assign(label=1), made.CARD, made.settings(), 0)


def test_any_part_of_a_plan_has_all_strategies_in_their_shares_and_each_all_folds() -> None:
    planned = plan(POSTS, made.CARD, made.settings(posts=600), 0)
    for part in (planned[:20], planned[40:60], planned[-20:]):
        found = [sum(one.strategy == strategy for one in part) for strategy in ("direct", "rewrite", "contrast")]
        assert np.allclose(found, [10, 6, 4], atol=1)
    for strategy in ("direct", "rewrite", "contrast"):
        assert {one.fold for one in planned if one.strategy == strategy} == set(range(5))


def test_posts_to_rewrite_differ_within_a_request_and_are_used_about_equally_often() -> None:
    planned = plan(POSTS, made.CARD, made.settings(posts=450, shares=(0, 1, 0)), 0)
    assert all(one.shown["id"].is_unique for one in planned)
    used = pd.concat([one.shown for one in planned])["id"].value_counts().reindex(POSTS["id"].iloc[:200], fill_value=0)
    for label in (0, 1):
        mine = used[(POSTS["label"].iloc[:200] == label).to_numpy(dtype=bool)]
        assert mine.max() - mine.min() <= 2  # folds of the test are not stratified by label


def test_a_fold_without_a_label_is_passed_over_and_nothing_to_rewrite_is_one_sentence() -> None:
    lacking = POSTS.assign(label=POSTS["label"].where((POSTS["fold"] != 2) | (POSTS["split"] != "train"), 0))
    planned = plan(lacking, made.CARD, made.settings(shares=(0, 1, 0)), 0)
    assert planned and all((one.fold != 2) or 1 not in one.labels for one in planned)
    few = POSTS[(POSTS["label"] == 0).fillna(False) | (POSTS.index < 6)]
    with pytest.raises(
        InputError, match=r"^a request to rewrite wants \d different training posts labelled 1 of one fold"
    ):
        plan(few, made.CARD, made.settings(shares=(0, 1, 0), posts_per_request=8), 0)
