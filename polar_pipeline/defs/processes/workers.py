"""Worker processes: each takes one task after the other; one that is killed costs its task and is replaced.

Workers end with the process that started them, also if that is killed: they would write into a home that nobody holds.
What does not belong here: what a task is. A task and whatever `execute` sends have to be picklable between processes.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple, Protocol

from polar_pipeline.errors import InputError

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # processes share cores
_GRACE = 15.0  # seconds that workers have to end when they are asked to


class Execute(Protocol):
    """What a worker does with its tasks."""

    def __call__(self, task: Any, send: Callable[[Any], None]) -> Any:
        """The result of one task. `send` takes messages meanwhile."""

    def close(self) -> None:
        """Called when the worker ends."""


class Started(NamedTuple):
    """A worker took a task."""

    task: Any


class Sent(NamedTuple):
    """What a task sent while it was executed."""

    task: Any
    message: Any


class Finished(NamedTuple):
    """A task's result, and the seconds that it took."""

    task: Any
    result: Any
    seconds: float


class Killed(NamedTuple):
    """A task without a result, because its process was killed or `execute` raised: `reason` in words."""

    task: Any
    reason: str


class _Raised(NamedTuple):
    """The last thing that a worker sends."""

    reason: str


Event = Started | Sent | Finished | Killed


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    task: Any = None
    started: float = 0.0


class Workers:
    """At most `processes` workers that call `execute(task, send)` in processes of their own, started by spawning."""

    def __init__(self, processes: int, execute: Execute) -> None:
        self._most, self._execute = processes, execute
        self._workers: list[_Worker] = []

    def __enter__(self) -> "Workers":
        """Nothing is started yet: workers start with the tasks."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._end(stop=kind is not None)

    def run(self, tasks: list[Any]) -> Iterator[Event]:
        """Events of all tasks as they come; every task ends in one `Finished` or `Killed`."""
        waiting, busy = list(tasks), 0
        while waiting or busy:
            while waiting and (worker := self._idle()) is not None:
                try:
                    worker.connection.send(waiting[0])
                except ConnectionError:  # it was killed while it had nothing to do: another takes the task
                    self._remove(worker)
                    continue
                worker.task, worker.started = waiting.pop(0), time.monotonic()
                busy += 1
                yield Started(worker.task)
            for event in self._events():
                busy -= isinstance(event, Finished | Killed)
                yield event

    def _idle(self) -> _Worker | None:
        for worker in self._workers:
            if worker.task is None and worker.process.is_alive():
                return worker
        if sum(worker.process.is_alive() for worker in self._workers) < self._most:
            self._workers.append(self._start())
            return self._workers[-1]
        return None

    def _start(self) -> _Worker:
        context = get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, self._execute), daemon=False)
        resource_tracker.ensure_running()  # its start, which the first worker would cause, unblocks SIGINT
        # a terminal sends Ctrl-C to all processes; workers, which inherit the mask, leave it to the first one
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        there.close()  # so that the end of the process is the end of the pipe
        return _Worker(process, here)

    def _events(self) -> Iterator[Event]:
        working = {worker.connection: worker for worker in self._workers if worker.task is not None}
        for connection in wait(list(working)):
            worker = working[connection]  # type: ignore[index]
            try:
                done, message = worker.connection.recv()
            except (EOFError, ConnectionError):
                yield Killed(worker.task, self._remove(worker))
                continue
            if isinstance(message, _Raised):
                self._remove(worker)
                yield Killed(worker.task, message.reason)
            elif done:
                task, worker.task = worker.task, None
                yield Finished(task, message, time.monotonic() - worker.started)
            else:
                yield Sent(worker.task, message)

    def _remove(self, worker: _Worker) -> str:
        """Forget a worker that has ended; returns how it did."""
        worker.process.join(_GRACE)
        self._workers.remove(worker)
        worker.connection.close()
        code = worker.process.exitcode
        if code is None:  # it closed its pipe and hangs
            worker.process.kill()
            return "its process stopped answering"
        if code < 0:
            name = signal.Signals(-code).name
            why = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
            return f"its process was killed ({name}{why})"
        return f"its process ended by itself (exit code {code})"

    def _end(self, stop: bool) -> None:
        """Close idle workers; with `stop`, terminate all, so that Dagster and MLflow note it, and then kill them."""
        try:
            for worker in self._workers:
                worker.connection.close()
                if stop:
                    worker.process.terminate()
            end = time.monotonic() + _GRACE
            for worker in self._workers:
                worker.process.join(max(end - time.monotonic(), 0))
        finally:  # a second Ctrl-C waits no longer
            for worker in self._workers:
                worker.process.kill()
                worker.process.join()


def _serve(connection: Connection, execute: Execute) -> None:
    """The loop of a worker."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except (EOFError, ConnectionError):  # nobody needs this worker any more
            execute.close()
            return
        try:
            answer = True, execute(task, lambda message: connection.send((False, message)))
            connection.send(answer)
        except ConnectionError:
            return
        except BaseException as error:  # such as a locked database, definitions that do not load, or an interrupt
            text = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}".rstrip(": ")
            with suppress(ConnectionError):
                connection.send((True, _Raised(text)))
            return


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is None:
        return
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)  # Dagster's handler fails the run
    time.sleep(_GRACE)
    os.kill(os.getpid(), signal.SIGKILL)
