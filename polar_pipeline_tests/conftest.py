"""What several tests share: a project over a home of its own, a finished run of the demo, a release of one's own."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.defs.project import Project

# how long an example takes says how busy the machine is, and nothing about the code
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# a shell starts what runs in its background with SIGINT ignored, and processes that tests interrupt would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)

DATA_DIR = os.environ.get("POLAR_DATA_DIR")
real_data = pytest.mark.skipif(not DATA_DIR, reason="set POLAR_DATA_DIR to the official release")

ASSETS = [  # of one language in the demo
    "raw_posts",
    "corpus_audit",
    "synthetic_posts",
    "deduped_posts",
    "linear_adapter",
    "linear_dev_probabilities",
    "tiny_gemma_adapter",
    "tiny_gemma_dev_probabilities",
    "thresholds",
    "ensemble_predictions",
]
CODES = ["deu", "eng", "hin"]  # of the bundled corpus


def polar(home: Path, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the `polar` command as a user would, in its own process and home."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("POLAR_", "DAGSTER_"))}
    variables |= {"POLAR_HOME": str(home), "COLUMNS": "160", **environment}
    command = [sys.executable, "-m", "polar_pipeline", *arguments]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, cwd=home.parent, check=False)
    assert not check or done.returncode == 0, f"{arguments} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done


QUICK = """
name: own
description: Two languages of a release of one's own, by their words alone.
data: release
languages: [deu, eng]
folds: {count: 3}
backbones:
  - {name: linear, kind: linear, words: [1, 1], characters_in_words: null, cased_characters: null}
decision: {resamples: 20}
report: {resamples: 100}
"""


@dataclass(frozen=True)
class Site:
    """A folder with a release of one's own, a profile `own.yaml` that reads it, and a home."""

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def release(self) -> Path:
        return self.folder / "release"

    def results(self, profile: str = "own") -> Path:
        return self.home / "profiles" / profile

    @classmethod
    def make(cls, folder: Path) -> "Site":
        """With the bundled corpus as the release; nothing was run yet."""
        for split in ("train", "dev", "test"):
            shutil.copytree(bundled_folder() / split, folder / "release" / split)
        (folder / "own.yaml").write_text(QUICK, encoding="utf-8")
        return cls(folder)

    def copy(self, folder: Path) -> "Site":
        """The same in another place, to be changed."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Site(folder)

    def polar(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return polar(self.home, *arguments, check=check, POLAR_DATA_DIR=str(self.release))

    def run(self, *arguments: str, profile: str = "own", check: bool = True) -> subprocess.CompletedProcess[str]:
        """`polar run`, of all languages unless some are named."""
        languages = () if "--language" in arguments else ("--all",)
        return self.polar("run", *languages, *arguments, "--profile", f"{profile}.yaml", check=check)

    def project(self, profile: str = "own") -> Project:
        """For what is done in this process; POLAR_DATA_DIR has to be set."""
        return Project.load(str(self.folder / f"{profile}.yaml"), {"POLAR_HOME": str(self.home)})

    def write_profile(self, name: str, *changes: tuple[str, str]) -> None:
        """`NAME.yaml`: own.yaml, changed by replacing texts."""
        text = (self.folder / "own.yaml").read_text(encoding="utf-8")
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        (self.folder / f"{name}.yaml").write_text(text, encoding="utf-8")


def computed(home: Path) -> Counter[tuple[str, str]]:
    """How often each asset and language was computed: a step that finds its output current has no MLflow run."""
    query = """SELECT asset.value, coalesce(partition.value, '') FROM tags asset LEFT JOIN tags partition
               ON partition.run_uuid = asset.run_uuid AND partition.key = 'dagster.partition'
               WHERE asset.key = 'dagster.asset'"""
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        return Counter((asset, language) for asset, language in database.execute(query))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The demo profile over an empty home."""
    return Project.load("demo", {"POLAR_HOME": str(tmp_path / "home")})


@pytest.fixture(scope="session")
def finished_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which `polar run --all --profile demo` has ended; to be looked at, not changed."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # one for all processes of tests
        folder = folder.parent
    home = folder / "finished" / "home"
    with FileLock(folder / "finished.lock"):
        if not home.exists():
            home.parent.mkdir(exist_ok=True)
            polar(home, "run", "--all", "--profile", "demo", "--jobs", "2")
    return home
