"""What several tests share: a project over a home of its own, and one finished run of the demo for those that only look."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from polar_pipeline.defs.project import Project

# how long an example takes says how busy the machine is, and nothing about the code
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

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


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """The demo profile over an empty home."""
    return Project.load("demo", {"POLAR_HOME": str(tmp_path / "home")})


@pytest.fixture(scope="session")
def finished_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which `polar run --all --profile demo` has ended; to be looked at, not changed."""
    home = tmp_path_factory.mktemp("finished") / "home"
    polar(home, "run", "--all", "--profile", "demo", "--jobs", "2")
    return home
