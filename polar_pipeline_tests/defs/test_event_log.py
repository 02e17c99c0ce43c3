"""Our event log and Dagster's own read each other's files."""

import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance import InstanceRef

from polar_pipeline.defs.instance import _MOST_ENGINES, EventLog, open_instance, prepare_home
from polar_pipeline.storage.home import Home


@dg.asset
def made() -> int:
    return 1


def plain(home: Home) -> dg.DagsterInstance:
    """As the web server and the daemon open it."""
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(home.dagster)))


def test_dagster_reads_what_ours_wrote_and_the_other_way_round(tmp_path: Path) -> None:
    home = Home(tmp_path)
    prepare_home(home)
    with open_instance(home.dagster) as ours:
        assert isinstance(ours.event_log_storage, EventLog)
        first = dg.materialize([made], instance=ours)
        with plain(home) as theirs:  # while ours keeps its connections
            assert not isinstance(theirs.event_log_storage, EventLog)
            assert {run.run_id for run in theirs.get_runs()} == {first.run_id}
            # beside the events of the run, that it was created and planned
            assert len(theirs.all_logs(first.run_id)) == len(first.all_events) + 2
            second = dg.materialize([made], instance=theirs)
        event = ours.get_latest_materialization_event(made.key)
        assert event is not None and event.run_id == second.run_id
    assert not [file.name for file in home.dagster.rglob("*-wal")]


def test_an_open_page_sees_events_as_they_come(tmp_path: Path) -> None:
    home, seen = Home(tmp_path), []
    prepare_home(home)
    with open_instance(home.dagster) as ours, plain(home) as theirs:
        run = ours.create_run_for_job(dg.Definitions(assets=[made]).resolve_implicit_global_asset_job_def())
        ours.report_engine_event("first", run)
        theirs.watch_event_logs(run.run_id, None, lambda event, _: seen.append(event.message))
        ours.report_engine_event("second", run)
        end = time.monotonic() + 20
        while "second" not in seen and time.monotonic() < end:
            time.sleep(0.1)
    assert "second" in seen


def test_a_deleted_run_takes_its_database_along(tmp_path: Path) -> None:
    home = Home(tmp_path)
    prepare_home(home)
    with open_instance(home.dagster) as ours:
        first, second = (dg.materialize([made], instance=ours).run_id for _ in range(2))
        ours.delete_run(first)
        assert not list(home.dagster.rglob(f"{first}*.db*"))
        assert not ours.all_logs(first) and ours.all_logs(second)
        event = ours.get_latest_materialization_event(made.key)
        assert event is not None and event.run_id == second


def test_connections_are_kept_and_the_oldest_closed(tmp_path: Path) -> None:
    log = EventLog(str(tmp_path))
    first = log._engine("first")
    assert log._engine("first") is first
    for place in range(_MOST_ENGINES):
        log._engine(str(place))
    assert len(log._engines) == _MOST_ENGINES and log._engine("first") is not first


@pytest.mark.parametrize(
    "settings",
    ["storage: {sqlite: {base_dir: %s}}", "event_log_storage: {module: dagster._core.storage.event_log, "
     "class: ConsolidatedSqliteEventLogStorage, config: {base_dir: %s}}"],
)  # fmt: skip
def test_a_storage_that_the_settings_name_is_not_replaced(tmp_path: Path, settings: str) -> None:
    home = Home(tmp_path / "home")
    home.dagster.mkdir(parents=True)
    (home.dagster / "dagster.yaml").write_text(settings % (tmp_path / "elsewhere"))
    prepare_home(home)
    assert list((tmp_path / "elsewhere").rglob("*.db"))
    with open_instance(home.dagster) as instance:
        assert not isinstance(instance.event_log_storage, EventLog)
        assert dg.materialize([made], instance=instance).success
