"""POLAR_HOME: the one folder under which everything lies that a run leaves. Two homes never touch each other."""

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
    def artifacts(self) -> Path:
        """Tables and records that assets hand to each other, adapters, and what MLflow stores."""
        return self.root / "artifacts"

    @property
    def ledgers(self) -> Path:
        """The folder of the database of what was asked of endpoints, what came back and what it cost."""
        return self.root / "ledgers"

    @property
    def release(self) -> Path:
        """Where `polar data fetch` puts the official release."""
        return self.root / "data" / "release"

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
