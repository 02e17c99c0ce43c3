"""A gate stops what screening would leave out, and what falls on dev; on published scores it finds the one that collapsed."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.decision.soundness import unsound
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.settings.decision import FoldSettings
from polar_pipeline.task.card import load_card
from polar_pipeline.task.languages import LANGUAGES
from polar_pipeline_tests.conftest import real_data
from polar_pipeline_tests.decision.made import make_posts, member

POSTS = make_posts()
FINAL, DEV = (POSTS["fold"] < 0).to_numpy(), (POSTS["split"] == "dev").to_numpy()
SOUND = member(POSTS, "a").logits[:, 0]


def complaints(logits: Floats, posts: pd.DataFrame = POSTS) -> list[str]:
    scores = posts[["split", "id", "fold"]].assign(backbone="a", seed=7, language="deu", logit=logits)
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
    scores = posts[["split", "id", "fold"]].assign(backbone="a", seed=7, language="deu", logit=logits)
    rows = posts.loc[DEV, ["split", "id", "fold"]]
    probes = rows.assign(backbone="a", seed=seed, language="deu", logit=probe).sample(frac=1, random_state=0)
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
        backbone="a", seed=7, logit=member(posts, "a", noise=1.5).logits[:, 0]
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
    scores = INSIDE[["split", "id", "fold"]].assign(backbone="a", seed=7, language="deu", logit=SOUND)
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
    found = {}
    for code in LANGUAGES:
        posts = assign_folds(read_posts(data, code, card), FoldSettings(fit_on="train"), 1)
        for complaint in unsound(posts, scores[scores["language"] == code], code, transductive=True):
            found.setdefault(complaint.partition(":")[0], set()).add(code)
    assert found == {"xlm-roberta-large seed 111": set(LANGUAGES)}
