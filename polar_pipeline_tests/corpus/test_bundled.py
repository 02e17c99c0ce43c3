"""The bundled corpus is one that every stage can use."""

import re

import pytest

from polar_pipeline.corpus.audit import audit
from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import check_posts, read_posts
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.settings.decision import FoldSettings
from polar_pipeline.task.languages import LANGUAGES
from polar_pipeline_tests.corpus.tables import CARD

BUNDLED = sorted(file.stem for file in (bundled_folder() / "train").glob("*.csv"))


def test_the_languages_are_registered_and_in_every_split() -> None:
    assert BUNDLED and set(BUNDLED) <= set(LANGUAGES)
    for split in ("train", "dev", "test"):
        assert {file.stem for file in (bundled_folder() / split).glob("*.csv")} == set(BUNDLED)


def test_it_says_that_it_is_made_up() -> None:
    readme = (bundled_folder() / "README.md").read_text(encoding="utf-8")
    assert re.search(r"made-up", readme, re.IGNORECASE) and "Apache-2.0" in readme


@pytest.mark.parametrize("language", BUNDLED)
def test_it_can_be_read_folded_and_audited(language: str) -> None:
    posts = read_posts(bundled_folder(), language, CARD)
    check_posts(posts, CARD)
    folded = assign_folds(posts, FoldSettings(), seed=0)
    assert (folded[folded["fold"] >= 0].groupby("fold")["label"].nunique() == 2).all()
    found = audit(posts, language, CARD, seed=0)
    assert (found.cross_split_dev, found.cross_split_test, found.repeated_ids, found.foreign_script) == (0, 0, 0, 0)
