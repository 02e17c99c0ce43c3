"""Progress is passed on early, at the end, and about once a second in between; scores are one table of all heads."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from polar_pipeline.backbones import base
from polar_pipeline.backbones.base import SCORE_COLUMNS, Progress
from polar_pipeline.backbones.imported import ImportedBackbone
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import ImportedSettings
from polar_pipeline_tests.corpus.tables import CARD


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as seconds to set."""
    now = [100.0]
    monkeypatch.setattr(base.time, "monotonic", lambda: now[0])
    return now


def test_the_first_the_last_and_one_call_a_second_are_passed_on(clock: list[float]) -> None:
    seen: list[tuple[float, float, str]] = []
    progress = Progress(advance=lambda *given: seen.append(given))
    for done in range(41):
        progress.advance(done, 40, "tokens")
        clock[0] += 0.125
    assert seen == [(done, 40, "tokens") for done in (0, 8, 16, 24, 32, 40)]


def test_another_unit_is_another_phase(clock: list[float]) -> None:
    seen: list[tuple[float, float, str]] = []
    progress = Progress(advance=lambda *given: seen.append(given))
    progress.advance(1, 9, "tokens")
    progress.advance(1, 9, "posts")
    progress.advancing(3, 9, "posts")(6)
    progress.advance(2, 9, "tokens")
    assert seen == [(1, 9, "tokens"), (1, 9, "posts"), (9, 9, "posts"), (2, 9, "tokens")]


def test_nobody_needs_to_listen() -> None:
    progress = Progress()
    progress.advance(1, 2, "folds")
    progress.measure(1, {"loss": 0.5})
    progress("a line")
    assert progress.latest == {"loss": 0.5}


def test_scores_have_a_row_for_every_head_seed_and_post() -> None:
    backbone = ImportedBackbone(ImportedSettings(name="mine", kind="imported", path="x.csv"), CARD, Path())
    posts = pd.DataFrame({"split": ["train", "test"], "fold": [0, -1], "id": ["x", "y"]})
    table = backbone._scores("deu", posts, {"label": {3: np.array([1.0, 2.0])}, "types": {3: np.array([5.0, 6.0])}})
    assert list(table.columns) == SCORE_COLUMNS
    assert table[["backbone", "head", "seed", "id", "logit"]].to_numpy().tolist() == [
        ["mine", "label", 3, "x", 1.0],
        ["mine", "label", 3, "y", 2.0],
        ["mine", "types", 3, "x", 5.0],
        ["mine", "types", 3, "y", 6.0],
    ]
    with pytest.raises(InputError, match="'mine' gave 1 posts of deu no finite logit"):
        backbone._scores("deu", posts, {"label": {3: np.zeros(2)}, "types": {3: np.array([0.0, np.nan])}})
    assert list(backbone._scores("deu", posts, {}).columns) == SCORE_COLUMNS
