"""How far a long step is: from the loop that does the work to whoever watches, a terminal or a run's log."""

import time
from typing import NamedTuple

from polar_pipeline.backbones.base import Progress
from polar_pipeline.defs.tracked_asset import StepContext
from polar_pipeline.tracking.base import TrackedRun

_QUIET_SECONDS = 30.0  # between two lines in a log


class StepProgress(NamedTuple):
    """`done` of `total` units of one asset and language, a second count since the step began beside them."""

    asset: str
    language: str | None
    done: float
    total: float
    unit: str
    seconds: float

    @property
    def line(self) -> str:
        """`deu  gemma_adapter  42%  1,200 tokens/s, about 310 s left`."""
        rate = self.done / self.seconds if self.seconds > 0 else 0.0
        left = f", about {max(self.total - self.done, 0) / rate:.0f} s left" if rate > 0 else ""
        share = self.done / self.total if self.total else 1.0
        return f"{self.language or 'all'}  {self.asset}  {share:.0%}  {rate:,.0f} {self.unit}/s{left}"


def nobody(progress: StepProgress) -> None:
    """Watches nothing; the run's log has a line now and then anyway."""


def reporting(context: StepContext, asset: str, run: TrackedRun | None) -> Progress:
    """The `Progress` of a step: lines to its log, figures to its tracked run, and how far it is to the watcher."""
    started = last_line = time.monotonic()

    def advance(done: float, total: float, unit: str) -> None:
        nonlocal last_line
        now = time.monotonic()
        progress = StepProgress(asset, context.language, done, total, unit, now - started)
        context.watcher(progress)
        if now - last_line >= _QUIET_SECONDS:
            last_line = now
            context.log.info(progress.line)

    return Progress(context.log.info, run.measure if run else None, advance)
