"""A gate stops what screening would leave out, and what falls on dev; on published scores it finds the one that collapsed."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.decision.gates import unsound
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.task.card import load_card
from polar_pipeline.task.languages import LANGUAGES
from polar_pipeline.task.profile import FoldSettings
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
