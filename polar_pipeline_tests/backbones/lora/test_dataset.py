"""Which rows each model of a language learns from, watches and scores."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.backbones.lora.dataset import LanguageDataset, Rows
from polar_pipeline.backbones.lora.loading import load_base
from polar_pipeline_tests.backbones.lora.examples import posts, settings

ROWS = Rows([np.ones(n, dtype=np.int64) for n in (3, 1, 2)], np.array([0, 1, 1]), np.array([False, False, True]))


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


def texts(base: BaseModel, rows: Rows) -> list[str]:
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
