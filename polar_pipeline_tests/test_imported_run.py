"""Scores made elsewhere through the whole graph: from a file of dev and test alone, noticed when it changes."""

from pathlib import Path

import pandas as pd
import pytest

from polar_pipeline_tests.conftest import polar

pytestmark = pytest.mark.slow

PROFILE = """
name: scores
description: Scores from a file.
data: bundled
languages: [deu]
folds: {count: 0}
backbones:
  - {name: mine, kind: imported, path: scores.csv}
"""


def test_scores_of_dev_alone_decide_and_a_changed_file_is_noticed(finished_home: Path, tmp_path: Path) -> None:
    scores = pd.read_parquet(
        finished_home / "profiles" / "demo" / "tables" / "linear_dev_probabilities" / "deu.parquet"
    )
    scores = scores[scores["split"] != "train"].assign(fold=-1)
    scores.to_csv(tmp_path / "scores.csv", index=False)
    (tmp_path / "own.yaml").write_text(PROFILE)
    command = ("run", "--all", "--profile", str(tmp_path / "own.yaml"))
    polar(tmp_path / "home", *command)
    results = tmp_path / "home" / "profiles" / "scores"
    page = (results / "report" / "index.html").read_text()
    assert "none: decided on dev alone" in page
    before = (results / "predictions" / "deu.csv").read_bytes()
    assert "1 of 1 languages are current" in polar(tmp_path / "home", *command).stdout
    scores.assign(logit=-scores["logit"]).to_csv(tmp_path / "scores.csv", index=False)
    again = polar(tmp_path / "home", *command, check=False)
    assert "file scores.csv has changed" in again.stdout
    assert again.returncode == 2 and "its out-of-fold scores are inverted" in again.stderr
    assert (results / "predictions" / "deu.csv").read_bytes() == before  # of the scores before, which nothing submits
