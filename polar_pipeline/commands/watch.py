"""What `polar run` shows while languages run: a line for each that finishes, the time left, and how far long steps are.

In a terminal, running steps are bars below those lines; in a pipe, a line each from time to time.
"""

import time

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from polar_pipeline.decision.record import Decisions
from polar_pipeline.defs.jobs import LANGUAGE_JOB
from polar_pipeline.defs.processes.runner import Outcome
from polar_pipeline.defs.processes.workers import Started
from polar_pipeline.defs.tracked_asset import StepProgress

_LINE_SECONDS = 30.0  # between two lines of one step in a pipe
_BAR_SECONDS = 2.0  # a step that is over before that is no long one


class RunWatch:
    """Progress of a run over `rows` (posts by language), `workers` languages at a time."""

    def __init__(self, rows: dict[str, int], workers: int) -> None:
        self.done = 0
        self._rows, self._workers, self._left = rows, workers, set(rows)
        self._running: dict[str, float] = {}  # language -> when it started
        self._measured: list[tuple[int, float]] = []  # rows and seconds of languages that finished
        self._last_line: dict[tuple[str, str | None], float] = {}
        console = Console()
        self._terminal = console.is_terminal
        texts = ("{task.description}", "{task.percentage:>3.0f}%", "{task.fields[rate]}")
        name, share, rate = (TextColumn(text) for text in texts)
        self._bars = Progress(
            name, BarColumn(), share, rate, console=console, transient=True, disable=not self._terminal
        )
        self._tasks: dict[tuple[str, str | None], TaskID] = {}

    def __enter__(self) -> "RunWatch":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def progress(self, event: StepProgress | Started) -> None:
        """A language that was started, or how far a step is."""
        if isinstance(event, Started):
            if event.task.job == LANGUAGE_JOB:
                self._running[event.task.language] = time.monotonic()
            return
        key = (event.asset, event.language)
        if self._terminal:
            self._bar(key, event)
        elif event.seconds - self._last_line.get(key, 0.0) >= _LINE_SECONDS:
            self._last_line[key] = event.seconds
            click.echo(f"  {event.line}")

    def finished(self, outcome: Outcome, decisions: Decisions | None) -> None:
        """A line for a language that ended."""
        code = outcome.language or outcome.job
        self._running.pop(code, None)
        self._left.discard(code)
        self.done = len(self._rows) - len(self._left)
        if not outcome.error and code in self._rows:
            self._measured.append((self._rows[code], outcome.seconds))
        for key in [key for key in self._tasks if key[1] == outcome.language]:
            self._bars.remove_task(self._tasks.pop(key))
        result = f"FAILED: {outcome.error}" if outcome.error else "done"
        if decisions is not None:
            estimate = decisions.out_of_fold
            result = f"{decisions.metric} {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}] out of fold"
        left = self.seconds_left()
        more = f"  (about {left:.0f} s left)" if left and self.done < len(self._rows) else ""
        line = f"[{self.done}/{len(self._rows)}] {code}  {result}{more}"
        if self._terminal:
            self._bars.console.print(line, markup=False, highlight=False)
        else:
            click.echo(line)

    def seconds_left(self) -> float | None:
        """From the rows a second of the languages that finished; None before the first."""
        rows, seconds = (sum(values) for values in zip(*self._measured, strict=True)) if self._measured else (0, 0.0)
        if not rows or not seconds:
            return None
        rate, now = rows / seconds, time.monotonic()
        left = self._rows_left(rate, now)
        return left / rate / max(min(self._workers, len(self._rows) - self.done), 1)

    def _rows_left(self, rate: float, now: float) -> float:
        """Rows of languages that have not ended, less what those that run have probably done."""
        done = sum(min(self._rows.get(code, 0) * 0.95, rate * (now - start)) for code, start in self._running.items())
        return max(sum(self._rows[code] for code in self._left) - done, 0.0)

    def _bar(self, key: tuple[str, str | None], event: StepProgress) -> None:
        if key not in self._tasks:
            if event.seconds < _BAR_SECONDS:
                return
            self._tasks[key] = self._bars.add_task(f"{event.language or 'all'}  {event.asset}", total=1.0, rate="")
        share = event.done / event.total if event.total else 1.0
        rate = event.line.rpartition("%  ")[2]
        self._bars.update(self._tasks[key], completed=share, rate=rate)
        if share >= 1.0:
            self._bars.remove_task(self._tasks.pop(key))
