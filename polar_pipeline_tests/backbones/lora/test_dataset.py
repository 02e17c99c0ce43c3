"""Which rows each model learns from, watches and scores, and that every row is in one batch of an epoch."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.backbones.lora.base_model import BaseModel, by_length
from polar_pipeline.backbones.lora.dataset import (
    LanguageDataset,
    Step,
    TokenizedRows,
    loss_divisors,
    plan_epochs,
    step_weights,
    training_steps,
)
from polar_pipeline.backbones.lora.loading import load_base
from polar_pipeline_tests.backbones.lora.examples import posts, settings

ROWS = TokenizedRows(
    [np.ones(n, dtype=np.int64) for n in (3, 1, 2)], np.array([0, 1, 1]), np.array([False, False, True])
)


def test_masks_and_numbers() -> None:
    assert ROWS.lengths.tolist() == [3, 1, 2]
    masked, numbered = ROWS.take(np.array([True, False, True])), ROWS.take(np.array([2, 0]))
    assert masked.lengths.tolist() == [3, 2] and masked.labels.tolist() == [0, 1]
    assert numbered.lengths.tolist() == [2, 3] and numbered.synthetic.tolist() == [True, False]


def test_none() -> None:
    none = ROWS.take(np.zeros(3, dtype=bool))
    assert none.tokens == [] and none.lengths.shape == (0,) and none.labels.shape == (0,)


@pytest.fixture(scope="module")
def gemma(bases_root: Path) -> BaseModel:
    return load_base(settings(max_length=256, token_budget=256), bases_root)


def texts(base: BaseModel, rows: TokenizedRows) -> list[str]:
    return [base.tokenizer.decode(row[1:]) for row in rows.tokens]


def prepared(base: BaseModel, given: pd.DataFrame, **changes: object) -> LanguageDataset:
    return LanguageDataset(given, base, settings(**changes), "deu", 1)


def with_synthetic(given: pd.DataFrame) -> pd.DataFrame:
    copies = given[given["fold"] == 1].assign(source="rewrite", text=lambda rows: "syn " + rows["text"])
    return pd.concat([given, copies], ignore_index=True)


def test_a_fold_is_held_out_with_all_that_was_made_of_it(gemma: BaseModel) -> None:
    given = with_synthetic(posts(folds=3))
    models = prepared(gemma, given).models()
    assert [(model.key, model.fold) for model in models] == [
        ("fold-0-seed-0", 0), ("fold-1-seed-0", 1), ("fold-2-seed-0", 2), ("final-seed-0", -1)
    ]  # fmt: skip
    for model in models[:3]:
        assert texts(gemma, model.rows) == given["text"][given["fold"].isin({0, 1, 2} - {model.fold})].tolist()
        real = (given["fold"] == model.fold) & (given["source"] == "real")
        assert texts(gemma, model.judged) == given["text"][real].tolist()
    assert texts(gemma, models[3].rows) == given["text"][given["fold"] >= 0].tolist()
    assert models[3].rows.synthetic.sum() == (given["source"] == "rewrite").sum() > 0


def test_dev_outside_the_folds_is_watched_and_never_fitted(gemma: BaseModel) -> None:
    given = posts()
    dev = given["text"][given["split"] == "dev"].tolist()
    for model in prepared(gemma, given).models():
        assert model.watch is not None and texts(gemma, model.watch) == dev
        assert not set(dev) & set(texts(gemma, model.rows))
    assert texts(gemma, prepared(gemma, given).models()[-1].judged) == dev


def test_without_dev_outside_a_fold_watches_what_it_holds_out(gemma: BaseModel) -> None:
    given = posts()
    given["fold"] = given["fold"].mask(given["split"] == "dev", 0)
    first, _, final = prepared(gemma, given).models()
    assert first.watch is not None and texts(gemma, first.watch) == texts(gemma, first.judged)
    assert final.watch is None


def test_no_folds_is_one_model_on_train(gemma: BaseModel) -> None:
    given = posts(folds=0)
    (model,) = prepared(gemma, given).models()
    assert model.fold == -1 and texts(gemma, model.rows) == given["text"][given["split"] == "train"].tolist()
    (same,) = prepared(gemma, given, final="fold_average").models()
    assert same.key == model.key


def test_what_curation_dropped_is_not_fitted_on_but_scored(gemma: BaseModel) -> None:
    given = posts().assign(keep=True)
    given.loc[0, "keep"] = False
    models = prepared(gemma, given).models()
    assert given["text"][0] not in texts(gemma, models[-1].rows)
    assert given["text"][0] in texts(gemma, models[0].judged)


def test_seeds_and_averages(gemma: BaseModel) -> None:
    models = prepared(gemma, posts(), seeds=(3, 10), final="fold_average").models()
    assert [model.key for model in models] == ["fold-0-seed-3", "fold-1-seed-3", "fold-0-seed-10", "fold-1-seed-10"]
    assert len({model.random_seed for model in models}) == 4


def test_a_models_random_numbers_do_not_depend_on_the_language(gemma: BaseModel) -> None:
    one, other = (
        [model.random_seed for model in LanguageDataset(posts(), gemma, settings(), title, 1).models()]
        for title in ("deu", "eng")
    )
    assert one == other
    assert one != [model.random_seed for model in LanguageDataset(posts(), gemma, settings(), "deu", 2).models()]


def test_class_weights_are_of_the_rows_that_are_fitted(gemma: BaseModel) -> None:
    given = posts()
    skewed = given.drop(given.index[(given["label"] == 1) & (given["fold"] == 0)][1:]).reset_index(drop=True)
    for model in prepared(gemma, skewed, class_weights="balanced").models():
        sums = [model.weights[model.rows.labels == label].sum() for label in (0, 1)]
        np.testing.assert_allclose(sums, len(model.weights) / 2)


LENGTHS = st.lists(st.integers(1, 40), max_size=60).map(lambda found: np.array(found, dtype=np.int64))


def rows_of(steps: list[Step]) -> list[int]:
    return [row for step in steps for batch in step.batches for row in batch.tolist()]


@given(LENGTHS, st.integers(8, 200))
def test_every_row_is_in_one_batch_and_no_batch_is_above_the_budget(lengths: np.ndarray, budget: int) -> None:
    batches = by_length(lengths, budget)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget


@given(LENGTHS, st.integers(8, 200))
def test_batches_are_as_full_as_rows_in_order_of_length_allow(lengths: np.ndarray, budget: int) -> None:
    batches = by_length(lengths, budget)
    for batch, following in itertools.pairwise(batches):
        assert lengths[batch].max() <= lengths[following].min()
        assert (len(batch) + 1) * lengths[following[0]] > budget


@given(LENGTHS, st.integers(8, 200), st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
def test_a_plan_visits_every_row_once_an_epoch(
    lengths: np.ndarray, budget: int, accumulate: int, epochs: int, seed: int
) -> None:
    steps = plan_epochs(lengths, budget, accumulate, epochs, seed)
    ends = [place for place, step in enumerate(steps, start=1) if step.ends_epoch]
    assert len(ends) == (epochs if len(lengths) else 0)
    for start, end in zip([0, *ends], ends, strict=False):
        assert sorted(rows_of(steps[start:end])) == list(range(len(lengths)))
        assert [len(step.batches) for step in steps[start : end - 1]] == [accumulate] * (end - start - 1)
        assert 1 <= len(steps[end - 1].batches) <= accumulate
    assert all(
        len(batch) == 1 or len(batch) * lengths[batch].max() <= budget for step in steps for batch in step.batches
    )


def test_exact_batches() -> None:
    lengths = np.array([5, 1, 9, 1, 4])
    assert [batch.tolist() for batch in by_length(lengths, 10)] == [[1, 3], [4, 0], [2]]
    assert [batch.tolist() for batch in by_length(lengths, 10, np.array([3, 4, 2, 1, 0]))] == [[3, 1], [4, 0], [2]]
    # a row above the budget stands alone, and does not take others with it
    assert [batch.tolist() for batch in by_length(np.array([3, 50, 3]), 10)] == [[0, 2], [1]]
    assert by_length(np.zeros(0, dtype=np.int64), 10) == []


def test_the_seed_gives_the_order() -> None:
    lengths = np.random.default_rng(0).integers(5, 80, 300)
    first, again, other = (rows_of(plan_epochs(lengths, 512, 1, 2, seed)) for seed in (1, 1, 2))
    assert first == again and first != other
    assert first[:300] != first[300:]  # each epoch has its own


def test_rows_of_one_length_do_not_always_share_a_batch() -> None:
    steps = plan_epochs(np.full(40, 10), 100, 1, 2, seed=0)
    together = [{frozenset(step.batches[0].tolist()) for step in steps[start : start + 4]} for start in (0, 4)]
    assert not together[0] & together[1]


def test_the_seed_alone_orders_the_bands_of_length() -> None:
    """So that the order of an adapter's batches does not depend on how many there are of each length."""

    def means(language: int, seed: int) -> list[float]:
        lengths = np.random.default_rng(language).integers(5, 200, 2000)
        return [lengths[step.batches[0]].mean() for step in plan_epochs(lengths, 1024, 1, 1, seed)][:180]

    assert np.corrcoef(means(1, seed=4), means(2, seed=4))[0, 1] > 0.7
    assert abs(np.corrcoef(means(1, seed=4), means(2, seed=5))[0, 1]) < 0.4


def padded_share(lengths: np.ndarray, batches: list[np.ndarray]) -> float:
    """Computed tokens over real ones."""
    return sum(len(batch) * lengths[batch].max() for batch in batches) / sum(lengths[batch].sum() for batch in batches)


def test_little_is_padding_at_the_lengths_of_posts() -> None:
    """Log-normal around 45 tokens is how long posts are; random batches of 32 compute twice as much."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(3.8, 0.6, 4000), 4, 256).astype(np.int64)
    batches = [batch for step in plan_epochs(lengths, 2048, 1, 1, seed=0) for batch in step.batches]
    assert padded_share(lengths, batches) < 1.06
    assert padded_share(lengths, np.array_split(random.permutation(4000), 125)) > 2


def rows_with(lengths: list[int], synthetic: list[int] | None = None) -> TokenizedRows:
    mask = np.isin(np.arange(len(lengths)), synthetic or [])
    return TokenizedRows(
        [np.ones(length, dtype=np.int64) for length in lengths], np.zeros(len(lengths), dtype=int), mask
    )


def test_a_long_post_counts_as_much_as_a_short_one() -> None:
    rows = rows_with([32] * 8 + [2] * 128)
    steps = training_steps(rows.lengths, rows.synthetic, settings(token_budget=64, epochs=2), seed=1)
    counts = {len(np.concatenate(step.batches)) for step in steps}
    assert max(counts) >= 16 * min(counts)
    by = loss_divisors(steps, np.ones(136))
    shares = np.zeros((2, 136))
    epoch = np.cumsum([0, *[step.ends_epoch for step in steps]])
    for place, step in enumerate(steps):
        shares[epoch[place], np.concatenate(step.batches)] += 1 / by[place]
    np.testing.assert_allclose(shares, shares[0, 0])
    # and a step's gradient is as large on average as that of a mean over its rows
    assert np.isclose((step_weights(steps, np.ones(136)) / by).mean(), 1)


def test_epochs_have_divisors_of_their_own_and_weights_count() -> None:
    rows = rows_with([8] * 12, synthetic=[0, 1, 2, 3])
    steps = training_steps(rows.lengths, rows.synthetic, settings(synthetic="warm_up", token_budget=32), seed=1)
    assert [step.warm_up for step in steps] == [True, False, False]
    weights = np.where(rows.synthetic, 3.0, 1.0)
    assert loss_divisors(steps, weights).tolist() == [12, 4, 4]
    assert (loss_divisors(steps, weights * 0) > 0).all()
    assert loss_divisors([], weights).tolist() == []
