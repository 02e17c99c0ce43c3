"""`polar export` from a finished home, and what is left out of it."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from polar_pipeline_tests.conftest import CODES, polar

pytestmark = pytest.mark.slow


def test_a_finished_run_is_exported_with_the_errors_of_test_apart(finished_home: Path, tmp_path: Path) -> None:
    done = polar(finished_home, "export", "--profile", "demo", "--to", str(tmp_path / "out"))
    assert f"3 languages in {tmp_path / 'out'}" in done.stdout and not done.stderr
    errors = pd.read_csv(tmp_path / "out" / "errors.csv", keep_default_na=False)
    assert set(errors["language"]) == set(CODES) and set(errors["split"]) == {"train", "dev", "test"}
    assert (errors["label"] != errors["prediction"]).all()
    assert pd.read_csv(tmp_path / "out" / "tables" / "scores.csv")["language"].tolist() == CODES


def test_what_is_missing_or_of_other_settings_is_named(finished_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = polar(home, "export", "--profile", "demo", check=False)
    assert done.returncode == 2 and "has no results of profile 'demo'" in done.stderr and not home.exists()
    shutil.copytree(finished_home / "artifacts", home / "artifacts")
    (home / "artifacts" / "thresholds" / "hin.json").unlink()
    done = polar(home, "export", "--profile", "demo")
    assert "2 languages" in done.stdout and "left out: hin: thresholds not materialized yet" in done.stderr
    done = polar(home, "export", "--profile", "cpu", check=False)
    assert done.returncode == 2 and "other settings than profile 'cpu'" in done.stderr
