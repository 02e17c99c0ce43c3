"""How a download shows itself: a bar on a terminal, else a line per file; both with the rate and an estimate."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from polar_pipeline.corpus.download import Watch

if TYPE_CHECKING:
    from rich import progress


@contextmanager
def watching(total: int, report: Callable[[str], None]) -> Iterator[Watch]:
    """A watch over `total` files: rich's bar when `report` is print on a terminal, else lines given to `report`."""
    if report is not print or not sys.stdout.isatty():
        yield Lines(total, report)
        return
    from rich import progress

    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("files, {task.fields[rate]}, left"),
        progress.TimeRemainingColumn(),
    )
    with bar:
        yield Bar(bar, bar.add_task("fetching", total=total, rate=""))


class Meter:
    """Bytes so far, and how fast they come."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._bytes = 0

    def add(self, count: int) -> None:
        """So many bytes more."""
        self._bytes += count

    @property
    def seconds(self) -> float:
        """Time since the beginning; above 0."""
        return max(time.perf_counter() - self._started, 1e-9)

    def __str__(self) -> str:
        """Megabytes, and megabytes a second."""
        return f"{self._bytes / 1e6:.1f} MB, {self._bytes / 1e6 / self.seconds:.1f} MB/s"


class Lines:
    """One line per file, for logs and pipes."""

    def __init__(self, total: int, report: Callable[[str], None]) -> None:
        self._total, self._report = total, report
        self._meter, self._done = Meter(), 0

    def on_bytes(self, count: int) -> None:
        """Count them."""
        self._meter.add(count)

    def on_file(self, path: Path) -> None:
        """Say which file it was, how many there are, the rate, and the time left if the others are like these."""
        self._done += 1
        left = self._meter.seconds / self._done * (self._total - self._done)
        estimate = f", about {left:.0f} s left" if self._done < self._total else ""
        self._report(f"[{self._done}/{self._total}] {path.parent.name}/{path.name}  ({self._meter}{estimate})")


class Bar:
    """A bar of files with the rate in bytes."""

    def __init__(self, bar: "progress.Progress", task: "progress.TaskID") -> None:
        self._bar, self._task, self._meter = bar, task, Meter()

    def on_bytes(self, count: int) -> None:
        """Show the rate."""
        self._meter.add(count)
        self._bar.update(self._task, rate=str(self._meter))

    def on_file(self, path: Path) -> None:  # noqa: ARG002 - the bar shows how many, not which
        """Move on by one."""
        self._bar.advance(self._task)
