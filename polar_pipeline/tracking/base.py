"""The tracker's interface: a run is opened for each step and closed with it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

Scalar = str | int | float | bool


@dataclass(frozen=True)
class TrackedStep:
    """One execution of one asset, for one partition or for none. `tags` are kept beside those of its identity."""

    asset: str
    partition: str | None
    dagster_run: str
    root_run: str
    attempt: int
    backfill: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """`thresholds[deu]`, or `benchmark_report` without a partition."""
        return f"{self.asset}[{self.partition}]" if self.partition else self.asset

    @property
    def run_tags(self) -> dict[str, str]:
        """Tags by which the run is found, with `tags`."""
        return self.pipeline_tags | {"dagster.asset": self.asset, "dagster.attempt": str(self.attempt)}

    @property
    def pipeline_tags(self) -> dict[str, str]:
        """Tags that all steps of a pipeline run and partition share."""
        tags = {
            **self.tags,
            "dagster.run_id": self.dagster_run,
            "dagster.root_run_id": self.root_run,
            "dagster.partition": self.partition or "",
        }
        return tags | ({"dagster.backfill": self.backfill} if self.backfill else {})


@dataclass(frozen=True)
class UsedData:
    """A data set that a step used. `frame` gives columns and row count; its values are not stored."""

    name: str
    digest: str
    context: str
    frame: "pd.DataFrame | None"


@dataclass
class TrackedRun:
    """What a step records. The tracker sends it when the step ends, and the values of `measure` at once."""

    params: dict[str, Scalar] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    data: list[UsedData] = field(default_factory=list)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    summary_metrics: dict[str, float] = field(default_factory=dict)
    summary_tags: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)  # for the materialization's metadata
    stream: Callable[[int, Mapping[str, float]], None] | None = None  # takes metrics while the step runs

    def log(self, params: Mapping[str, Scalar] | None = None, metrics: Mapping[str, float] | None = None) -> None:
        """Record settings and measures; a later value of the same name replaces the earlier."""
        self.params.update(params or {})
        self.metrics.update(metrics or {})

    def measure(self, step: int, values: Mapping[str, float]) -> None:
        """Send metrics of a training step at once, so that a long training can be watched."""
        if self.stream:
            self.stream(step, values)

    def log_data(self, name: str, digest: str, frame: "pd.DataFrame | None" = None, context: str = "training") -> None:
        """Record a data set by its fingerprint. Of `frame` only column names, types and the number of rows are stored.

        `context` is "training" or "evaluation".
        """
        self.data.append(UsedData(name, digest, context, frame))

    def log_artifact(self, name: str, content: bytes) -> None:
        """Record a file. `name` is a relative path. Raises ValueError for one that leaves the run's folder."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise ValueError(f"artifact name {name!r} has to be a relative path inside the run's folder")
        self.artifacts[name] = content

    def summary(self, metrics: Mapping[str, float] | None = None, tags: Mapping[str, str] | None = None) -> None:
        """Record figures of the whole pipeline run, for the list of runs: they go to the parent run."""
        self.summary_metrics.update(metrics or {})
        self.summary_tags.update(tags or {})


class Tracker:
    """Opens a run for a step. This one keeps nothing: for tests, and for pipelines without MLflow."""

    @contextmanager
    def step(self, step: TrackedStep) -> Iterator[TrackedRun]:  # noqa: ARG002 - for those that keep something
        """A run to record in; it ends FINISHED or FAILED with the `with` block."""
        yield TrackedRun()

    def end_pipeline(self, root_run: str, failed: bool = False) -> None:
        """Close the parent runs that this process opened for a root run."""

    def close_killed(self, dagster_run: str | None = None) -> int:  # noqa: ARG002 - for those that keep something
        """Mark open runs KILLED: those of a Dagster run that is dead, or all whose process on this host is gone.

        Returns the number of runs.
        """
        return 0
