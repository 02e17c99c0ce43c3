"""`polar compare`: a run beside itself and beside another, and every mistake is one sentence."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from polar_pipeline_tests.conftest import CODES, polar

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(finished_home: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished_home / "artifacts", tmp_path / "copy" / "artifacts")
    return tmp_path / "copy"


def test_a_run_is_the_same_as_its_copy(finished_home: Path, copy: Path) -> None:
    done = polar(copy, "compare", str(finished_home), str(copy))
    lines = [line for line in done.stdout.splitlines() if line.strip().startswith((*CODES, "mean"))]
    assert len(lines) == len(CODES) + 1
    assert all(line.rstrip().endswith("the same") for line in lines)


def test_languages_of_one_run_only_are_named(finished_home: Path, copy: Path) -> None:
    (copy / "artifacts" / "thresholds" / "hin.json").unlink()
    done = polar(copy, "compare", str(finished_home), str(copy))
    assert "in one run only, left out: hin" in done.stdout
    done = polar(copy, "compare", str(finished_home), str(copy), "--language", "hin", check=False)
    assert done.returncode == 2 and f"hin has not been decided in {copy}" in done.stderr


def test_posts_that_changed_since_are_noticed(finished_home: Path, copy: Path) -> None:
    path = copy / "artifacts" / "raw_posts" / "deu.parquet"
    posts = pd.read_parquet(path)
    posts.assign(label=1 - posts["label"]).to_parquet(path, index=False)
    done = polar(copy, "compare", str(finished_home), str(copy), check=False)
    assert done.returncode == 2
    assert "the decision of deu was made from other posts than raw_posts holds now" in done.stderr


def test_a_folder_without_a_run_is_refused(finished_home: Path, tmp_path: Path) -> None:
    done = polar(tmp_path / "home", "compare", str(finished_home), str(tmp_path), check=False)
    assert done.returncode == 2 and f"{tmp_path} holds no run" in done.stderr and "Traceback" not in done.stderr


def test_a_record_of_another_version_is_named(finished_home: Path, copy: Path) -> None:
    path = copy / "artifacts" / "thresholds" / "eng.json"
    path.write_text(path.read_text().replace('"nested"', '"former"'))
    done = polar(copy, "compare", str(finished_home), str(copy), check=False)
    assert done.returncode == 2
    assert "eng.json is no Decision of this version (wrong or missing: former, nested)" in done.stderr
