"""Our event log and Dagster's own read each other's files."""

from pathlib import Path

import dagster as dg
from sqlalchemy import NullPool

from polar_pipeline.defs.event_log import _MOST_ENGINES, EventLog
from polar_pipeline.defs.instance import open_instance, prepare_home
from polar_pipeline.storage.home import Home


@dg.asset
def made() -> int:
    return 1


def test_dagster_reads_what_ours_wrote_and_the_other_way_round(tmp_path: Path) -> None:
    home = Home(tmp_path)
    prepare_home(home)
    with open_instance(home.dagster) as ours:
        assert isinstance(ours.event_log_storage, EventLog)
        first = dg.materialize([made], instance=ours)
    with dg.DagsterInstance.from_config(str(home.dagster)) as plain:
        assert not isinstance(plain.event_log_storage, EventLog)
        assert {run.run_id for run in plain.get_runs()} == {first.run_id}
        assert (
            len(plain.all_logs(first.run_id)) == len(first.all_events) + 2
        )  # and that the run was created and planned
        second = dg.materialize([made], instance=plain)
    with open_instance(home.dagster) as ours:
        event = ours.get_latest_materialization_event(made.key)
        assert event is not None and event.run_id == second.run_id


def test_engines_are_kept_and_the_oldest_dropped(tmp_path: Path) -> None:
    log = EventLog(str(tmp_path))
    first = log._engine("first")
    assert log._engine("first") is first and isinstance(first.pool, NullPool)
    for place in range(_MOST_ENGINES):
        log._engine(str(place))
    assert len(log._engines) == _MOST_ENGINES and log._engine("first") is not first
