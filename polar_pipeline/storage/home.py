"""POLAR_HOME: the one folder under which everything lies that runs leave. Two homes never touch each other.

What does not depend on a profile (the history, ledgers, adapters by content) is shared; everything else lies in a
folder per profile, so that two profiles stand side by side and never overwrite each other.
"""

import os
from collections.abc import Mapping
from pathlib import Path

BASES = "bases"  # the folder of adapters has it


class Home:
    """Paths inside one home; making a `Home` touches no disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dagster = root / "dagster"  # DAGSTER_HOME: run history, event log, schedules
        self.mlflow_database = root / "mlflow.db"
        self.mlflow_artifacts = root / "mlflow"
        self.ledgers = root / "ledgers"  # the database of what was asked of endpoints, what came back and what it cost
        self.release = root / "data" / "release"  # where `polar data fetch` puts the official release
        self.adapters = root / "adapters"  # folders of fitted models by content, shared by all profiles
        self.bases = self.adapters / BASES  # hashes of the files of base models, and tiny ones
        self.embeddings = root / "embeddings"  # that were computed before, shared by all profiles

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Home":
        """$POLAR_HOME, or `.polar` in the current folder."""
        return cls(Path(environment.get("POLAR_HOME") or ".polar").expanduser().resolve())

    def results(self, profile: str) -> "ProfileFolder":
        """What one profile has made."""
        return ProfileFolder(self.root / "profiles" / profile)

    @property
    def profiles(self) -> list[str]:
        """Names of the profiles that have results here."""
        folder = self.root / "profiles"
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


class ProfileFolder:
    """Paths of one profile's results."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.tables = root / "tables"  # what assets hand to each other, each with what it was made from beside it
        self.settings = root / "profile.json"  # says which profile file these results are of
        self.submission = root / "submission.zip"  # as the task's organisers accept it
        self.report = root / "report" / "index.html"

    def predictions(self, language: str) -> Path:
        """The CSV of one language's predictions: id, polarization, probability."""
        return self.root / "predictions" / f"{language}.csv"

    def label_errors(self, language: str) -> Path:
        """The CSV of one language's posts whose labels are doubtful."""
        return self.root / "label_errors" / f"{language}.csv"

    def review(self, language: str) -> Path:
        """The CSV of one language's dev and test posts that a person should look at."""
        return self.root / "review" / f"{language}.csv"
