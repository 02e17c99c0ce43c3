"""Worker processes: a task that is killed or raises costs itself, the others go on, and no process is left."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from polar_pipeline.defs.processes.workers import Event, Finished, Killed, Sent, Started, Workers
from polar_pipeline.errors import InputError


class Execute:
    """Does what a task says; the task's argument is a folder or a number."""

    def __init__(self) -> None:
        self.done = 0  # in this process

    def __call__(self, task: tuple[str, Any], send: Callable[[Any], None]) -> Any:
        what, argument = task
        self.done += 1
        if what == "kill":
            os.kill(os.getpid(), argument)
        if what == "exit":
            os._exit(argument)
        if what == "raise":
            raise argument
        if what == "send":
            for place in range(argument):
                send(f"{place} of {argument}")
        if what == "unpicklable":
            return lambda: None
        if what == "close":
            self.close_to: Path = argument
        if what == "sleep":
            send("asleep")
            time.sleep(argument)
        return what, os.getpid(), self.done

    def close(self) -> None:
        if hasattr(self, "close_to"):
            self.close_to.touch()


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    yield
    assert not multiprocessing.active_children()
    workers = [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]
    assert not workers


def run(processes: int, *tasks: tuple[str, Any]) -> list[Event]:
    with Workers(processes, Execute()) as workers:
        return list(workers.run(list(tasks)))


def ends(events: list[Event]) -> dict[Any, Any]:
    """The result or reason of each task, which has exactly one."""
    found = [event for event in events if isinstance(event, Finished | Killed)]
    assert len({event.task for event in found}) == len(found)
    return {event.task: event.reason if isinstance(event, Killed) else event.result[0] for event in found}


def test_one_worker_takes_task_after_task_in_order() -> None:
    tasks = [("send", 0), ("send", 1), ("send", 3)]
    events = run(1, *tasks)
    assert [event.task for event in events if isinstance(event, Started)] == tasks
    finished = [event for event in events if isinstance(event, Finished)]
    assert [event.task for event in finished] == tasks
    assert [event.result[2] for event in finished] == [1, 2, 3] and len({event.result[1] for event in finished}) == 1
    assert [event.message for event in events if isinstance(event, Sent)] == ["0 of 1", "0 of 3", "1 of 3", "2 of 3"]
    assert all(event.seconds > 0 for event in finished)
    last = {event.task: place for place, event in enumerate(events) if isinstance(event, Sent)}
    assert all(events.index(event) > last.get(event.task, -1) for event in finished)


def test_no_tasks_start_no_process() -> None:
    assert run(2) == [] == run(0)


def test_a_task_that_is_killed_costs_itself_and_the_others_go_on() -> None:
    killed, ended = ("kill", signal.SIGKILL), ("exit", 3)
    done = ends(run(2, ("send", 1), killed, ("send", 2), ended, ("send", 3), ("kill", signal.SIGSEGV)))
    assert done == {
        ("send", 1): "send",
        ("send", 2): "send",
        ("send", 3): "send",
        killed: "its process was killed (SIGKILL, as the system does when memory runs out)",
        ("kill", signal.SIGSEGV): "its process was killed (SIGSEGV)",
        ended: "its process ended by itself (exit code 3)",
    }


def test_what_execute_raises_is_the_reason(capfd: pytest.CaptureFixture[str]) -> None:
    errors = [InputError("the database is locked: try again."), RuntimeError("no memory"), KeyError(), MemoryError()]
    tasks: list[tuple[str, Any]] = [("raise", error) for error in errors]
    with Workers(1, Execute()) as workers:
        events = list(workers.run([*tasks, ("send", 1), ("raise", SystemExit(4)), ("unpicklable", 0)]))
    reasons = [event.reason for event in events if isinstance(event, Killed)]
    assert reasons[:5] == [
        "the database is locked: try again.",
        "RuntimeError: no memory",
        "KeyError",
        "MemoryError",
        "SystemExit: 4",
    ]
    assert "pickle" in reasons[5] and len(reasons) == 6
    assert [event.result[2] for event in events if isinstance(event, Finished)] == [1]  # in a fresh process
    assert "Traceback" not in capfd.readouterr().err


def test_a_worker_that_was_killed_while_idle_costs_nothing() -> None:
    with Workers(1, Execute()) as workers:
        first = list(workers.run([("send", 0)]))[-1]
        assert isinstance(first, Finished)
        os.kill(first.result[1], signal.SIGKILL)  # it may not be dead yet when the next task is sent
        events = list(workers.run([("send", 1), ("send", 2)]))
    lost = [event for event in events if isinstance(event, Killed)]
    assert len(lost) <= 1  # that it died before the task, or with it, cannot always be told apart
    assert len(ends(events)) == 2


def test_workers_are_used_again_and_closed(tmp_path: Path) -> None:
    with Workers(2, Execute()) as workers:
        (first,) = [event for event in workers.run([("close", tmp_path / "closed")]) if isinstance(event, Finished)]
        (again,) = [event for event in workers.run([("send", 0)]) if isinstance(event, Finished)]
        assert (again.result[1], again.result[2]) == (first.result[1], 2)
        assert not (tmp_path / "closed").exists()
    assert (tmp_path / "closed").exists()


def test_an_interrupt_ends_what_is_at_work() -> None:
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Workers(2, Execute()) as workers:
        asleep = 0
        for event in workers.run([("sleep", 60), ("sleep", 61), ("send", 0)]):
            asleep += isinstance(event, Sent)
            if asleep == 2:
                raise KeyboardInterrupt
    assert time.monotonic() - started < 30


SCRIPT = """
import os, sys
from polar_pipeline.defs.processes.workers import Sent, Workers
from polar_pipeline_tests.defs.test_workers import Execute
if __name__ == "__main__":
    with Workers(2, Execute()) as workers:
        for event in workers.run([("sleep", 60), ("sleep", 61)]):
            if isinstance(event, Sent):
                print("asleep", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_and_a_kill_of_the_first_process_end_all(tmp_path: Path, how: signal.Signals) -> None:
    """Ctrl-C reaches every process of the terminal, and only the first one answers to it."""
    (tmp_path / "script.py").write_text(SCRIPT)
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "script.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    try:
        assert [process.stdout.readline() for _ in range(2)] == ["asleep\n"] * 2
        children = psutil.Process(process.pid).children()
        if how == signal.SIGINT:
            os.killpg(process.pid, how)
        else:
            process.kill()
        process.wait(30)
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive
        assert process.stderr.read().count("Traceback") == (how == signal.SIGINT)  # that of the first process alone
    finally:
        process.stdout.close()
        process.stderr.close()
        if process.poll() is None:
            process.kill()
