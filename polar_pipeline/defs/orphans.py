"""Runs whose process is gone: who executes a run, and failing the runs that nobody executes any more.

A run knows its process by tags: `polar run` sets them when it creates a run, and `owned_executor` when a process that
the daemon launched starts with its steps.

| state of the run | it is an orphan when |
|---|---|
| has tags of its own process | that process has ended; on another machine: nobody from there works in this home |
| has none yet: queued, or just launched | no daemon serves this home |
"""

import os
import socket
import time
from collections.abc import Iterator
from typing import Any

import dagster as dg
import psutil
from dagster._core.executor.in_process import InProcessExecutor

from polar_pipeline.storage.home import Home
from polar_pipeline.storage.lock import Worker, machine, process_start, ui_was_killed, who_works
from polar_pipeline.tracking.base import Tracker

OWNER_HOST, OWNER_PID, OWNER_PROCESS = "polar/host", "polar/pid", "polar/process"
_STATUS = dg.DagsterRunStatus
_LAUNCHED = [_STATUS.STARTING, _STATUS.STARTED, _STATUS.CANCELING]
_UNFINISHED = [_STATUS.NOT_STARTED, _STATUS.QUEUED, *_LAUNCHED]
_HEARTBEAT = 90.0  # seconds; a daemon that lives writes one every 30


def owner_tags() -> dict[str, str]:
    """Tags that say which process executes a run."""
    start = process_start(os.getpid())
    return {OWNER_HOST: socket.gethostname(), OWNER_PID: str(os.getpid()), OWNER_PROCESS: f"{machine()} {start}"}


class _OwnedExecutor(InProcessExecutor):
    """Steps in the run's process, which tags the run as its own before the first one."""

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        plan_context.instance.add_run_tags(plan_context.run_id, owner_tags())
        yield from super().execute(plan_context, execution_plan)


_PLAIN: Any = dg.in_process_executor


@dg.executor(name="in_process", config_schema=_PLAIN.config_schema)
def owned_executor(context: dg.InitExecutorContext) -> _OwnedExecutor:
    """All steps in the process of their run: a process for each light step would cost more than the step."""
    plain = _PLAIN.executor_creation_fn(context)
    return _OwnedExecutor(plain.retries, plain.step_dependency_config, plain.marker_to_close)


def close_orphans(
    instance: dg.DagsterInstance, home: Home, tracker: Tracker, served: bool = False, launching: bool = False
) -> list[str]:
    """Fail orphaned runs, free their slots in pools, and close what they left open in MLflow. Returns their ids.

    `served`: the caller knows that a daemon lives. `launching`: the caller starts one, which launches what is queued.
    """
    orphans = []
    for run in find_orphans(instance, home, served):
        if launching and run.status == dg.DagsterRunStatus.QUEUED and _owner(instance, run) is None:
            continue
        now = instance.get_run_by_id(run.run_id)
        if now is None or now.is_finished:  # it ended by itself while we looked
            continue
        instance.report_run_failed(
            now, "The process that executed this run is gone: it was killed, or its machine went down."
        )
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        tracker.close_killed(run.run_id)
        orphans.append(run.run_id)
    tracker.close_killed()
    return orphans


def executing_pids(instance: dg.DagsterInstance) -> set[int]:
    """The pids on this machine that execute a run or will: those that Dagster has noted for it, tagged or not."""
    pids = set()
    for run in instance.get_runs(dg.RunsFilter(statuses=_LAUNCHED)):
        if owner := _owner(instance, run):
            pids.add(int(owner[OWNER_PID]))
            continue
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            noted = entry.get_dagster_event().engine_event_data.metadata.get("pid")
            pids |= {int(str(noted.value))} if noted else set()
    return pids


def unfinished_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Runs that have not ended, whoever executes them."""
    return list(instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)))


def find_orphans(instance: dg.DagsterInstance, home: Home, served: bool = False) -> list[dg.DagsterRun]:
    """Unfinished runs that nobody executes or will execute. `served`: the caller knows that a daemon lives."""
    served = served or is_served(instance, home)
    workers, found = who_works(home), []
    for record in instance.get_run_records(dg.RunsFilter(statuses=_UNFINISHED)):
        owner = _owner(instance, record.dagster_run)
        if not (_lives(owner, record, workers) if owner else served):
            found.append(record.dagster_run)
    return found


def _owner(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, str] | None:
    """The tags of the run's own process. A run that was launched again has its parent's until its process starts."""
    tags = {name: run.tags[name] for name in (OWNER_HOST, OWNER_PID, OWNER_PROCESS) if name in run.tags}
    if not {OWNER_HOST, OWNER_PID} <= set(tags):
        return None
    parent = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    if parent and all(parent.tags.get(name) == value for name, value in tags.items()):
        return None
    return tags


def _lives(owner: dict[str, str], record: dg.RunRecord, workers: list[Worker]) -> bool:
    """Whether the process that owns a run exists. On another machine: whether somebody there works in this home."""
    host, pid = owner[OWNER_HOST], int(owner[OWNER_PID])
    if OWNER_PROCESS not in owner:  # of an earlier version: a process that is younger than the run is another one
        if host != socket.gethostname():
            return any(worker.host == host for worker in workers)
        return process_start(pid) is not None and _is_older(pid, record)
    where, _, start = owner[OWNER_PROCESS].rpartition(" ")
    if where != machine():
        return any(worker.machine == where for worker in workers)
    return process_start(pid) == start


def _is_older(pid: int, record: dg.RunRecord) -> bool:
    try:
        started: float = psutil.Process(pid).create_time()
        return started <= record.create_timestamp.timestamp()
    except psutil.NoSuchProcess:
        return False


def is_served(instance: dg.DagsterInstance, home: Home) -> bool:
    """Whether a daemon launches runs in this home: that of `polar ui`, or one that was started by `dg dev`, say."""
    if any(worker.command == "polar ui" for worker in who_works(home)):
        return True
    if ui_was_killed(home):
        return False
    beats = instance.get_daemon_heartbeats().values()
    return any(time.time() - beat.timestamp < _HEARTBEAT for beat in beats)
