"""What a terminal or a pipe shows of a run: lines, bars, and a time left that follows from rows that were measured."""

from pathlib import Path

import pytest

from polar_pipeline.commands import run as run_module
from polar_pipeline.commands import watch as module
from polar_pipeline.commands.run import available_cores
from polar_pipeline.commands.watch import RunWatch
from polar_pipeline.defs.jobs import LANGUAGE_JOB, POOLED_JOB, PREPARE_JOB
from polar_pipeline.defs.processes.runner import Outcome, Task
from polar_pipeline.defs.processes.workers import Started
from polar_pipeline.defs.tracked_asset import StepProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def start(watch: RunWatch, *codes: str, job: str = LANGUAGE_JOB) -> None:
    for code in codes:
        watch.progress(Started(Task("cpu", job, code)))


def finish(watch: RunWatch, code: str | None, seconds: float = 0.0, error: str = "", job: str = LANGUAGE_JOB) -> None:
    watch.finished(Outcome(job, code, error=error, seconds=seconds), None)


def test_the_time_left_of_two_workers(clock: list[float]) -> None:
    watch = RunWatch({"swa": 1000, "deu": 400, "eng": 600}, 2)
    start(watch, "swa", "deu")
    assert watch.seconds_left() is None  # nothing was measured yet
    clock[0] = 10.0
    finish(watch, "deu", seconds=10.0)  # 40 rows a second
    start(watch, "eng")
    # swa has done 400 of its rows, 600 are left; eng has 600: 1,200 rows by two workers of 40 rows a second
    assert watch.seconds_left() == pytest.approx(15.0)
    clock[0] = 20.0
    assert watch.seconds_left() == pytest.approx(5.0)
    finish(watch, "eng", seconds=10.0)  # 1,000 rows in 20 seconds
    # one worker is left, with 1,000 rows, of which no more than 95% can be done
    assert watch.seconds_left() == pytest.approx(1.0)
    finish(watch, "swa", seconds=20.0)
    assert watch.seconds_left() == 0.0 and watch.done == 3


def test_a_language_that_failed_is_neither_measured_nor_left(clock: list[float]) -> None:
    watch = RunWatch({"swa": 1000, "deu": 100, "eng": 100}, 1)
    start(watch, "swa")
    finish(watch, "swa", seconds=0.5, error="no posts")
    assert watch.seconds_left() is None
    start(watch, "deu")
    finish(watch, "deu", seconds=10.0)
    assert watch.seconds_left() == pytest.approx(10.0)  # of eng alone


def test_nothing_is_divided_by_zero(clock: list[float]) -> None:
    watch = RunWatch({"deu": 0, "eng": 0}, 0)
    start(watch, "deu", "eng")
    finish(watch, "deu", seconds=0.0)
    assert watch.seconds_left() is None
    finish(watch, "eng", seconds=1.0)
    assert watch.seconds_left() is None and RunWatch({}, 2).seconds_left() is None


def test_lines_in_a_pipe(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with RunWatch({"deu": 100, "eng": 100}, 1) as watch:
        start(watch, "deu", job=PREPARE_JOB)
        finish(watch, None, job=POOLED_JOB)
        assert watch.done == 0
        start(watch, "deu")
        for seconds in (1.0, 29.0, 31.0, 40.0, 62.0):
            watch.progress(StepProgress("gemma", "deu", seconds, 100.0, "tokens", seconds))
        watch.progress(StepProgress("gemma", "eng", 31.0, 0.0, "tokens", 31.0))
        finish(watch, "deu", seconds=70.0)
        finish(watch, "eng", error="[red] no posts: add some.")
    assert capsys.readouterr().out.splitlines() == [
        "[0/2] train_pooled  done",
        "  deu  gemma  31%  1 tokens/s, about 69 s left",
        "  deu  gemma  62%  1 tokens/s, about 38 s left",
        "  eng  gemma  100%  1 tokens/s, about 0 s left",
        "[1/2] deu  done  (about 70 s left)",
        "[2/2] eng  FAILED: [red] no posts: add some.",
    ]


def test_bars_in_a_terminal(
    clock: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with RunWatch({"deu": 100}, 1) as watch:
        start(watch, "deu")
        watch.progress(StepProgress("gemma", "deu", 1.0, 100.0, "tokens", 1.0))
        assert not watch._bars.tasks  # it may be over in a moment
        watch.progress(StepProgress("gemma", "deu", 5.0, 100.0, "tokens", 5.0))
        (bar,) = watch._bars.tasks
        assert (bar.description, bar.completed, bar.fields["rate"]) == (
            "deu  gemma",
            0.05,
            "1 tokens/s, about 95 s left",
        )
        watch.progress(StepProgress("gemma", "deu", 100.0, 100.0, "tokens", 100.0))
        assert not watch._bars.tasks
        watch.progress(StepProgress("other", "deu", 0.0, 0.0, "posts", 3.0))
        watch.progress(StepProgress("third", "deu", 1.0, 3.0, "posts", 3.0))
        finish(watch, "deu", error="[bold]")
        assert not watch._bars.tasks
    assert "[1/1] deu  FAILED: [bold]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "200000 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),  # half a core is one process
        ({"cpu.max": "6400000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu.max": "", "cpu/cpu.cfs_quota_us": "300000"}, 8),
        ({"cpu.max": "100000 0"}, 8),
    ],
)
def test_cores_are_those_of_the_cgroup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int
) -> None:
    monkeypatch.setattr(run_module.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert available_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("own", "limited", "cores"),
    [
        ("0::/system.slice/polar.service", "system.slice/polar.service/cpu.max", 2),
        ("0::/system.slice/polar.service", "system.slice/cpu.max", 2),  # the tighter limit of the two
        ("0::/system.slice/polar.service", "system.slice/other.service/cpu.max", 4),
        ("3:cpu,cpuacct:/batch/job\n2:memory:/batch\n0::/", "cpu/batch/job/cpu.cfs_quota_us", 2),
        ("2:memory:/batch", "cpu/batch/cpu.cfs_quota_us", 4),
    ],
)
def test_cores_are_those_of_the_groups_that_this_process_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, limited: str, cores: int
) -> None:
    monkeypatch.setattr(run_module.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "own").write_text(f"{own}\n")
    (tmp_path / "cpu.max").write_text("400000 100000")
    quota = tmp_path / limited
    quota.parent.mkdir(parents=True)
    quota.write_text("200000 100000" if quota.name == "cpu.max" else "200000")
    (quota.parent / "cpu.cfs_period_us").write_text("100000")
    assert available_cores(tmp_path, tmp_path / "own") == cores


def test_cores_are_those_of_the_affinity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module.os, "sched_getaffinity", lambda _: {3}, raising=False)
    (tmp_path / "cpu.max").write_text("400000 100000")
    assert available_cores(tmp_path) == 1
