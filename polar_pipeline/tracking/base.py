"""What a tracker is: it opens one run per step and closes it with the step. The null tracker does the same and keeps nothing."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

Scalar = str | int | float | bool


@dataclass(frozen=True)
class Step:
    """What is being computed: the identity of a tracked run."""

    asset: str
    partition: str | None
    dagster_run: str
    root_run: str
    attempt: int
    backfill: str | None = None

    @property
    def name(self) -> str:
        """`thresholds[deu]`, or `benchmark_report` for what has no partition."""
        return f"{self.asset}[{self.partition}]" if self.partition else self.asset

    @property
    def tags(self) -> dict[str, str]:
        """Tags by which the run is found from Dagster's side."""
        tags = {
            "dagster.run_id": self.dagster_run,
            "dagster.root_run_id": self.root_run,
            "dagster.asset": self.asset,
            "dagster.partition": self.partition or "",
            "dagster.attempt": str(self.attempt),
        }
        return tags | ({"dagster.backfill": self.backfill} if self.backfill else {})


@dataclass
class TrackedRun:
    """What a step notes; the tracker sends it in one batch when the step ends, and what is measured on the way at once."""

    params: dict[str, Scalar] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    datasets: dict[str, str] = field(default_factory=dict)  # name -> digest
    links: dict[str, str] = field(default_factory=dict)  # for the materialization's metadata
    stream: Callable[[int, Mapping[str, float]], None] | None = None  # takes figures while the step runs

    def log(self, params: Mapping[str, Scalar] | None = None, metrics: Mapping[str, float] | None = None) -> None:
        """Note settings and measures; a later value of the same name replaces the earlier."""
        self.params.update(params or {})
        self.metrics.update(metrics or {})

    def measure(self, step: int, values: Mapping[str, float]) -> None:
        """Send figures of a training's step at once, so that a long one can be watched."""
        if self.stream:
            self.stream(step, values)

    def log_data(self, name: str, digest: str) -> None:
        """Note which data the step used, by fingerprint."""
        self.datasets[name] = digest


class Tracker(Protocol):
    """Opens a run for a step; the run ends FINISHED or FAILED with the `with` block."""

    def step(self, step: Step) -> AbstractContextManager[TrackedRun]:
        """A context manager that gives the run to note things in."""

    def close_killed(self, dagster_run: str | None = None) -> int:
        """Mark what a killed process left running in this Dagster run; returns how many runs that were."""


class NullTracker:
    """Keeps nothing; for tests and for those who want no MLflow."""

    @contextmanager
    def step(self, step: Step) -> Iterator[TrackedRun]:  # noqa: ARG002 - the protocol's signature
        """A run that is forgotten."""
        yield TrackedRun()

    def close_killed(self, dagster_run: str | None = None) -> int:  # noqa: ARG002 - the protocol's signature
        """Nothing was kept, so nothing is open."""
        return 0
