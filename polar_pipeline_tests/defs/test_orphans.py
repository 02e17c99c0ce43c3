"""Runs whose process is gone are failed, in whatever state they are, and live ones are left alone."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._daemon.types import DaemonHeartbeat

from polar_pipeline.defs.automation import FOLLOWS_LANGUAGES
from polar_pipeline.defs.instance import open_instance, prepare_home
from polar_pipeline.defs.orphans import (
    OWNER_HOST,
    OWNER_PID,
    OWNER_PROCESS,
    close_orphans,
    executing_pids,
    owned_executor,
    owner_tags,
)
from polar_pipeline.defs.sensors import close_orphaned_runs
from polar_pipeline.storage.home import Home
from polar_pipeline.storage.lock import machine, serving, writing
from polar_pipeline.tracking.base import Tracker
from polar_pipeline_tests.storage.test_lock import holder

STATES = [dg.DagsterRunStatus(name) for name in ("NOT_STARTED", "QUEUED", "STARTING", "STARTED", "CANCELING")]
PARTITIONS = dg.StaticPartitionsDefinition(["deu", "eng"])


@dg.asset(name="ensemble_predictions", partitions_def=PARTITIONS)
def language() -> int:
    return 1


@dg.asset(deps=[language], automation_condition=FOLLOWS_LANGUAGES)
def report() -> int:
    return 1


DEFS = dg.Definitions(assets=[language, report], executor=owned_executor)
ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(
        GrpcServerCodeLocationOrigin("localhost", 1, location_name="polar_pipeline"), "__repository__"
    ),
    "job",
)
JOB = DEFS.resolve_implicit_global_asset_job_def()


class CountingTracker(Tracker):
    """Notes for which runs it was asked."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def close_killed(self, dagster_run: str | None = None) -> int:
        self.asked.append(dagster_run)
        return 0


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    prepare_home(home)
    return home


@pytest.fixture
def instance(home: Home) -> Iterator[dg.DagsterInstance]:
    with open_instance(home.dagster) as opened:
        yield opened


def dead_tags() -> dict[str, str]:
    """Tags of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    return owner_tags() | {OWNER_PID: str(process.pid), OWNER_PROCESS: f"{machine()} 1"}


def make(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus, tags: dict[str, str], parent: str | None = None
) -> str:
    """A run in a state, as its process or the daemon left it."""
    links = {"parent_run_id": parent, "root_run_id": parent} if parent else {}
    return instance.create_run_for_job(JOB, status=status, tags=tags, remote_job_origin=ORIGIN, **links).run_id


def status_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


@pytest.mark.parametrize("state", STATES)
def test_a_run_of_a_dead_process_is_failed_in_any_state(
    home: Home, instance: dg.DagsterInstance, state: dg.DagsterRunStatus
) -> None:
    tracker, dead, alive = CountingTracker(), make(instance, state, dead_tags()), make(instance, state, owner_tags())
    assert close_orphans(instance, home, tracker) == [dead]
    assert status_of(instance, dead) == dg.DagsterRunStatus.FAILURE and status_of(instance, alive) == state
    assert tracker.asked == [dead, None]
    assert close_orphans(instance, home, tracker) == []


def test_a_reused_pid_is_another_process(home: Home, instance: dg.DagsterInstance) -> None:
    reused = owner_tags() | {OWNER_PROCESS: f"{machine()} 1"}
    rebooted = owner_tags() | {OWNER_PROCESS: "an-earlier-boot/pid:[1] 240098"}
    runs = [make(instance, dg.DagsterRunStatus.STARTED, tags) for tags in (reused, rebooted)]
    assert set(close_orphans(instance, home, Tracker())) == set(runs)


def test_a_zombie_executes_nothing(home: Home, instance: dg.DagsterInstance) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        from polar_pipeline.storage.lock import process_start

        tags = owner_tags() | {OWNER_PID: str(process.pid), OWNER_PROCESS: f"{machine()} {process_start(process.pid)}"}
        run = make(instance, dg.DagsterRunStatus.STARTED, tags)
        assert close_orphans(instance, home, Tracker()) == []
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert close_orphans(instance, home, Tracker()) == [run]
    finally:
        process.communicate()


def test_another_machine_s_run_lives_as_long_as_somebody_there_works_in_the_home(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as there:
        there.setattr("polar_pipeline.storage.lock.machine", lambda: "elsewhere")
        there.setattr("polar_pipeline.defs.orphans.machine", lambda: "elsewhere")
        there.setattr(socket, "gethostname", lambda: "other")
        work = writing(home, "cpu")
        work.__enter__()
        run = make(instance, dg.DagsterRunStatus.STARTED, owner_tags())
    assert close_orphans(instance, home, Tracker()) == []
    work.__exit__(None, None, None)
    assert close_orphans(instance, home, Tracker()) == [run]


def test_runs_of_an_earlier_version_are_judged_by_host_pid_and_age(home: Home, instance: dg.DagsterInstance) -> None:
    here = socket.gethostname()
    started = make(instance, dg.DagsterRunStatus.STARTED, {OWNER_HOST: here, OWNER_PID: str(os.getpid())})
    elsewhere = make(instance, dg.DagsterRunStatus.STARTED, {OWNER_HOST: "other", OWNER_PID: str(os.getpid())})
    time.sleep(1)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as younger:
        reused = make(instance, dg.DagsterRunStatus.STARTED, {OWNER_HOST: here, OWNER_PID: str(younger.pid)})
        record = instance.get_run_record_by_id(reused)
        assert record is not None
        assert close_orphans(instance, home, Tracker()) == [elsewhere]
        younger.kill()
        younger.wait()
        assert close_orphans(instance, home, Tracker()) == [reused]
    assert status_of(instance, started) == dg.DagsterRunStatus.STARTED


@pytest.mark.parametrize("state", STATES)
def test_what_the_daemon_has_not_begun_is_an_orphan_only_when_no_daemon_lives(
    home: Home, instance: dg.DagsterInstance, state: dg.DagsterRunStatus
) -> None:
    run = make(instance, state, {})
    with serving(home, "cpu"):
        assert close_orphans(instance, home, Tracker()) == []
    assert close_orphans(instance, home, Tracker(), served=True) == []
    # the user interface that starts now will launch what is queued, and nothing else
    queued = state == dg.DagsterRunStatus.QUEUED
    assert close_orphans(instance, home, Tracker(), launching=True) == ([] if queued else [run])
    assert close_orphans(instance, home, Tracker()) == ([run] if queued else [])


def test_the_heartbeat_of_a_daemon_that_was_started_without_us_counts(home: Home, instance: dg.DagsterInstance) -> None:
    run = make(instance, dg.DagsterRunStatus.STARTING, {})
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "some-daemon", []))
    assert close_orphans(instance, home, Tracker()) == []
    with holder("serving", home, "cpu") as ui:  # a user interface that is killed leaves a heartbeat too
        assert close_orphans(instance, home, Tracker()) == []
        ui.kill()
        ui.wait()
        assert close_orphans(instance, home, Tracker()) == [run]


def test_a_run_that_is_launched_again_is_not_judged_by_its_parent_s_process(
    home: Home, instance: dg.DagsterInstance
) -> None:
    tags = dead_tags()
    parent = make(instance, dg.DagsterRunStatus.STARTED, tags)
    again = make(instance, dg.DagsterRunStatus.QUEUED, tags, parent)
    assert close_orphans(instance, home, Tracker(), served=True) == [parent]
    assert status_of(instance, again) == dg.DagsterRunStatus.QUEUED


def test_a_run_of_the_daemon_gets_the_tags_of_its_process(
    home: Home, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(home.dagster))
    job = dg.reconstructable(job_of_this_file)
    result = dg.execute_job(job, instance=instance, tags=dead_tags())
    run = instance.get_run_by_id(result.run_id)
    assert result.success and run is not None and owner_tags().items() <= run.tags.items()


def job_of_this_file() -> dg.JobDefinition:
    @dg.op
    def nothing() -> None:
        return None

    @dg.job(executor_def=owned_executor)
    def small() -> None:
        nothing()

    return small


def test_an_orphan_frees_its_slots_and_no_longer_blocks_the_report(home: Home, instance: dg.DagsterInstance) -> None:
    cursor = dg.evaluate_automation_conditions(DEFS, instance).cursor

    def requested() -> int:
        return dg.evaluate_automation_conditions(DEFS, instance, cursor=cursor).total_requested

    assert dg.materialize([language], partition_key="eng", instance=instance).success
    only = JOB.get_subset(asset_selection={language.key})
    tags = {"dagster/partition": "deu", **dead_tags()}
    run = instance.create_run_for_job(only, status=dg.DagsterRunStatus.STARTED, tags=tags)
    instance.event_log_storage.set_concurrency_slots("gpu", 1)
    instance.event_log_storage.claim_concurrency_slot("gpu", run.run_id, "step")
    assert requested() == 0  # one language seems to be in work
    close_orphans(instance, home, Tracker())
    assert requested() == 1
    assert instance.event_log_storage.claim_concurrency_slot("gpu", "another", "step").is_claimed


def test_the_sensor_fails_orphans_and_leaves_what_the_daemon_is_about_to_launch(
    home: Home, instance: dg.DagsterInstance
) -> None:
    dead, queued = (
        make(instance, dg.DagsterRunStatus.STARTED, dead_tags()),
        make(instance, dg.DagsterRunStatus.QUEUED, {}),
    )
    context = dg.build_sensor_context(instance=instance, resources={"tracker": Tracker()})
    skipped = close_orphaned_runs(home)(context)
    assert isinstance(skipped, dg.SkipReason) and dead in str(skipped.skip_message)
    assert (
        status_of(instance, dead) == dg.DagsterRunStatus.FAILURE
        and status_of(instance, queued) == dg.DagsterRunStatus.QUEUED
    )


def test_a_launched_process_is_known_before_it_has_tagged_its_run(instance: dg.DagsterInstance) -> None:
    make(instance, dg.DagsterRunStatus.STARTING, {})  # its process has not been seen yet
    noted = instance.get_run_by_id(make(instance, dg.DagsterRunStatus.STARTING, {}))
    assert noted is not None
    instance.report_engine_event("Started process for run (pid: 77).", noted, EngineEventData.in_process(77))
    make(instance, dg.DagsterRunStatus.STARTED, owner_tags())
    make(instance, dg.DagsterRunStatus.QUEUED, owner_tags() | {OWNER_PID: "78"})
    assert executing_pids(instance) == {77, os.getpid()}
