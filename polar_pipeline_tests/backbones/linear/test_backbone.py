"""The backbone on the bundled corpus: out of fold is out of fold, and an adapter is all that scoring needs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from polar_pipeline.backbones.base import SCORE_COLUMNS, Progress
from polar_pipeline.backbones.linear.backbone import LinearBackbone
from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import auc
from polar_pipeline.settings.backbones import LinearSettings
from polar_pipeline.settings.decision import FoldSettings
from polar_pipeline.task.card import load_card

CARD = load_card("polar")


def backbone(root: Path, final: str = "retrain") -> LinearBackbone:
    return LinearBackbone(LinearSettings(final=final), 1, 5, CARD, root)


@pytest.fixture(scope="module")
def posts() -> pd.DataFrame:
    return assign_folds(read_posts(bundled_folder(), "deu", CARD), FoldSettings(), 1)


def scored(model: LinearBackbone, posts: pd.DataFrame) -> pd.DataFrame:
    return model.score("deu", model.train("deu", posts, Progress()), posts)


def test_every_post_is_scored_once_and_well(posts: pd.DataFrame, tmp_path: Path) -> None:
    scores = scored(backbone(tmp_path), posts)
    assert list(scores.columns) == SCORE_COLUMNS
    assert scores["id"].tolist() == posts["id"].tolist() and scores["split"].tolist() == posts["split"].tolist()
    held_out = (posts["fold"] >= 0).to_numpy()
    assert auc(posts["label"][held_out].to_numpy(dtype=int), scores["logit"][held_out].to_numpy()) > 0.75


def test_a_held_out_post_cannot_reach_the_model_that_scores_it(posts: pd.DataFrame, tmp_path: Path) -> None:
    """Flip the labels of one fold: its own scores stay, those of the other folds move."""
    flipped = posts.assign(label=posts["label"].where(posts["fold"] != 2, 1 - posts["label"]))
    before, after = scored(backbone(tmp_path), posts), scored(backbone(tmp_path), flipped)
    inside = (posts["fold"] == 2).to_numpy()
    np.testing.assert_array_equal(before["logit"][inside], after["logit"][inside])
    elsewhere = ~inside & (posts["fold"] >= 0).to_numpy()
    assert (before["logit"][elsewhere] != after["logit"][elsewhere]).mean() > 0.99


def test_a_leak_between_folds_would_be_seen(posts: pd.DataFrame, tmp_path: Path) -> None:
    """Labels are noise: honest out-of-fold scores know nothing of them, though the final model learns them by heart."""
    labels = pd.array(np.random.default_rng(0).integers(0, 2, len(posts)), dtype="Int8")
    noise = posts.assign(label=labels)
    scores = scored(backbone(tmp_path), noise)
    rows = (posts["fold"] >= 0).to_numpy()
    assert abs(auc(labels[rows].to_numpy(dtype=int), scores["logit"][rows].to_numpy()) - 0.5) < 0.12


def test_same_posts_same_bytes_and_test_texts_do_not_matter(posts: pd.DataFrame, tmp_path: Path) -> None:
    first = backbone(tmp_path / "a").train("deu", posts, Progress())
    other = posts.assign(text=posts["text"].where(posts["split"] != "test", "something else"))
    assert backbone(tmp_path / "b").train("deu", other, Progress()) == first


def test_new_texts_are_scored_as_the_rows_that_were_fitted(posts: pd.DataFrame, tmp_path: Path) -> None:
    """Scoring counts with the stored vocabulary; on the training texts that must agree with the model in memory."""
    model = backbone(tmp_path)
    ref = model.train("deu", posts, Progress())
    again = pd.concat([posts, posts[posts["split"] == "train"].assign(split="test", fold=-1)], ignore_index=True)
    scores = model.score("deu", ref, again).iloc[len(posts) :]
    fitted = posts[posts["split"] == "train"]
    assert auc(fitted["label"].to_numpy(dtype=int), scores["logit"].to_numpy()) > 0.99


def test_fold_average_is_the_mean_of_the_fold_models(posts: pd.DataFrame, tmp_path: Path) -> None:
    retrained, averaged = scored(backbone(tmp_path), posts), scored(backbone(tmp_path, "fold_average"), posts)
    rows = (posts["fold"] >= 0).to_numpy()
    np.testing.assert_array_equal(retrained["logit"][rows], averaged["logit"][rows])
    test = ~rows
    assert 0.9 < np.corrcoef(retrained["logit"][test], averaged["logit"][test])[0, 1] < 1


def test_dev_outside_the_folds_is_scored_by_the_final_model(tmp_path: Path) -> None:
    posts = assign_folds(read_posts(bundled_folder(), "deu", CARD), FoldSettings(fit_on="train"), 1)
    scores = scored(backbone(tmp_path), posts)
    assert (scores.loc[scores["split"] == "dev", "fold"] == -1).all()
    dev = scores["split"] == "dev"
    assert auc(posts["label"][dev].to_numpy(dtype=int), scores["logit"][dev].to_numpy()) > 0.7


def test_an_adapter_of_other_posts_settings_or_language_is_refused(posts: pd.DataFrame, tmp_path: Path) -> None:
    model = backbone(tmp_path)
    ref = model.train("deu", posts, Progress())
    changed = posts.assign(label=posts["label"].where(posts.index != 0, 1 - posts["label"]))
    with pytest.raises(InputError, match="posts_fingerprint"):
        model.score("deu", ref, changed)
    with pytest.raises(InputError, match="config_fingerprint"):
        backbone(tmp_path, "fold_average").score("deu", ref, posts)


def test_a_synthetic_post_leaves_with_the_fold_that_it_was_made_from(posts: pd.DataFrame, tmp_path: Path) -> None:
    """Copies of the posts of fold 2, flipped: in their own fold they cannot touch its scores, in another they do."""
    real = posts.assign(keep=True)
    copies = real[real["fold"] == 2].assign(id=lambda rows: rows["id"] + "_syn", source="rewrite", split="train")
    copies = copies.assign(label=1 - copies["label"])
    inside = (posts["fold"] == 2).to_numpy()
    before = scored(backbone(tmp_path), real)["logit"].to_numpy()
    own = scored(backbone(tmp_path), pd.concat([real, copies], ignore_index=True))
    assert own["id"].tolist() == posts["id"].tolist()
    # more n-grams stand in the matrix, unused, so sums of floats come in another order
    np.testing.assert_allclose(own["logit"].to_numpy()[inside], before[inside], atol=1e-5)
    leaked = scored(backbone(tmp_path), pd.concat([real, copies.assign(fold=3)], ignore_index=True))
    assert np.abs(leaked["logit"].to_numpy()[inside] - before[inside]).max() > 0.5
    dropped = scored(backbone(tmp_path), pd.concat([real, copies.assign(fold=3, keep=False)], ignore_index=True))
    np.testing.assert_allclose(dropped["logit"].to_numpy(), before, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"words": (2, 3)},
        {"characters_in_words": None, "shares": (1.0, 0.0, 1.0)},
        {"words": None, "characters_in_words": None, "cased_characters": (3, 4)},
    ],
)
def test_kinds_and_lengths_are_settings(posts: pd.DataFrame, tmp_path: Path, changes: dict[str, object]) -> None:
    """Other n-grams give other scores; an adapter scores new texts by the n-grams that it was trained with."""
    model = LinearBackbone(LinearSettings.model_validate(changes), 1, 5, CARD, tmp_path)
    ref = model.train("deu", posts, Progress())
    scores = model.score("deu", ref, posts)
    rows = (posts["fold"] >= 0).to_numpy()
    labels = posts["label"][rows].to_numpy(dtype=int)
    assert auc(labels, scores["logit"][rows].to_numpy()) > 0.7
    assert (scores["logit"].to_numpy() != scored(backbone(tmp_path / "b"), posts)["logit"].to_numpy()).mean() > 0.99
    again = model.logits("deu", ref, posts["text"][~rows].tolist(), (0,))["label"]
    np.testing.assert_array_equal(again, scores["logit"][~rows].to_numpy())
    with pytest.raises(InputError, match="config_fingerprint"):
        backbone(tmp_path).score("deu", ref, posts)
