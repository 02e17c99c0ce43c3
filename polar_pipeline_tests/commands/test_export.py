"""`polar export` from a finished home, and what is left out of it."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from polar_pipeline.settings.profile import load_profile
from polar_pipeline.settings.yaml_files import commented
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
    assert done.returncode == 2 and "no language can be shown (deu: " in done.stderr and not home.exists()
    for folder in ("profiles", "adapters"):
        shutil.copytree(finished_home / folder, home / folder)
    (home / "profiles" / "demo" / "tables" / "thresholds" / "hin.json").unlink()
    done = polar(home, "export", "--profile", "demo")
    assert f"2 languages in {home / 'profiles' / 'demo' / 'export'}" in done.stdout
    assert "left out: hin: thresholds: profiles/demo/tables/thresholds/hin.json is missing" in done.stderr
    demo = load_profile("demo")
    changed = demo.model_copy(update={"decision": demo.decision.model_copy(update={"resamples": 100})})
    (tmp_path / "other.yaml").write_text(commented(changed.model_copy(update={"name": "other"})), encoding="utf-8")
    (home / "profiles" / "demo").rename(home / "profiles" / "other")  # as if another had been run under this name
    done = polar(home, "export", "--profile", "other.yaml", check=False)
    assert done.returncode == 2 and "setting decision.resamples is 100, was 200" in done.stderr
