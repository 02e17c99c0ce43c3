"""POLAR_HOME: the one folder under which everything lies that runs leave. Two homes never touch each other.

What does not depend on a profile (the history, ledgers, adapters by content) is shared; everything else lies in a
folder per profile, so that two profiles stand side by side and never overwrite each other.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Home:
    """Paths inside one home; making a `Home` touches no disk."""

    root: Path

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Home":
        """$POLAR_HOME, or `.polar` in the current folder."""
        return cls(Path(environment.get("POLAR_HOME") or ".polar").expanduser().resolve())

    @property
    def dagster(self) -> Path:
        """DAGSTER_HOME of this home: run history, event log, schedules."""
        return self.root / "dagster"

    @property
    def mlflow_database(self) -> Path:
        """The sqlite file of the MLflow tracking store."""
        return self.root / "mlflow.db"

    @property
    def mlflow_artifacts(self) -> Path:
        """Files that MLflow keeps of its runs."""
        return self.root / "mlflow"

    @property
    def ledgers(self) -> Path:
        """The folder of the database of what was asked of endpoints, what came back and what it cost."""
        return self.root / "ledgers"

    @property
    def release(self) -> Path:
        """Where `polar data fetch` puts the official release."""
        return self.root / "data" / "release"

    @property
    def adapters(self) -> Path:
        """Content-addressed folders of fitted models, shared by all profiles."""
        return self.root / "adapters"

    @property
    def embeddings(self) -> Path:
        """Embeddings that were computed before, shared by all profiles."""
        return self.root / "embeddings"

    def results(self, profile: str) -> "Results":
        """What one profile has made."""
        return Results(self.root / "profiles" / profile)

    @property
    def profiles(self) -> list[str]:
        """Names of the profiles that have results here."""
        folder = self.root / "profiles"
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []


@dataclass(frozen=True)
class Results:
    """Paths of one profile's results."""

    root: Path

    @property
    def tables(self) -> Path:
        """Tables and records that assets hand to each other, each with what it was made from beside it."""
        return self.root / "tables"

    @property
    def settings(self) -> Path:
        """Says which profile file these results are of."""
        return self.root / "profile.json"

    def predictions(self, language: str) -> Path:
        """The CSV of one language's predictions: id, polarization, probability."""
        return self.root / "predictions" / f"{language}.csv"

    def review(self, language: str) -> Path:
        """The CSV of one language's dev and test posts that a person should look at."""
        return self.root / "review" / f"{language}.csv"

    @property
    def submission(self) -> Path:
        """The zip that the task's organisers accept."""
        return self.root / "submission.zip"

    @property
    def report(self) -> Path:
        """The benchmark report."""
        return self.root / "report" / "index.html"
