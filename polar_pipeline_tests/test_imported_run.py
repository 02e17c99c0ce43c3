"""Scores made elsewhere through the whole graph: from a file of dev and test alone, and what a changed file does to --resume."""

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
    scores = pd.read_parquet(finished_home / "artifacts" / "linear_dev_probabilities" / "deu.parquet")
    scores = scores[scores["split"] != "train"].assign(fold=-1)
    scores.to_csv(tmp_path / "scores.csv", index=False)
    (tmp_path / "own.yaml").write_text(PROFILE)
    command = ("run", "--all", "--profile", str(tmp_path / "own.yaml"))
    polar(tmp_path / "home", *command)
    predictions = tmp_path / "home" / "predictions" / "deu.csv"
    before = predictions.read_bytes()
    page = (tmp_path / "home" / "report" / "index.html").read_text()
    assert "none: decided on dev alone" in page
    assert "finished before: deu" in polar(tmp_path / "home", *command, "--resume").stdout
    scores.assign(logit=-scores["logit"]).to_csv(tmp_path / "scores.csv", index=False)
    again = polar(tmp_path / "home", *command, "--resume", check=False)
    assert "finished before" not in again.stdout
    assert again.returncode == 2 and "its out-of-fold scores are inverted" in again.stderr
    assert predictions.read_bytes() == before
