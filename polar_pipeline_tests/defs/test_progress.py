"""How far a step is: a line in its log now and then, and every report to the watcher; nothing is divided by zero."""

from typing import Any

import pytest

from polar_pipeline.defs import tracked_asset as module
from polar_pipeline.defs.tracked_asset import StepContext, StepProgress, reporting
from polar_pipeline.tracking.base import TrackedRun


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (StepProgress("a", "deu", 420, 1000, "tokens", 2.0), "deu  a  42%  210 tokens/s, about 3 s left"),
        (StepProgress("a", None, 5000, 5000, "posts", 1.0), "all  a  100%  5,000 posts/s, about 0 s left"),
        (StepProgress("a", "deu", 0, 10, "folds", 3.0), "deu  a  0%  0 folds/s"),
        (StepProgress("a", "deu", 1, 10, "folds", 0.0), "deu  a  10%  0 folds/s"),
        (StepProgress("a", "deu", 0, 0, "folds", 0.0), "deu  a  100%  0 folds/s"),
    ],
)
def test_the_line(progress: StepProgress, line: str) -> None:
    assert progress.line == line


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, text: str) -> None:
        self.lines.append(text)


def test_everything_reaches_the_watcher_and_a_line_the_log_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    log, seen, run = Log(), [], TrackedRun()
    points: list[tuple[int, Any]] = []
    run.stream = lambda step, values: points.append((step, values))
    step: Any = StepContext(log, "deu", watcher=seen.append)  # type: ignore[arg-type]
    progress = reporting(step, "gemma", run)
    for second in range(0, 70, 10):
        clock[0] = 100.0 + second
        progress.advance(second, 60, "tokens")
    assert [found.done for found in seen] == [0, 10, 20, 30, 40, 50, 60]
    assert {(found.asset, found.language, found.total) for found in seen} == {("gemma", "deu", 60)}
    assert [found.seconds for found in seen] == [0, 10, 20, 30, 40, 50, 60]
    assert log.lines == [seen[3].line, seen[6].line]
    progress("a line")
    progress.measure(3, {"loss": 0.5})
    assert log.lines[-1] == "a line" and points == [(3, {"loss": 0.5})]
