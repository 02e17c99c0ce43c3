"""One MLflow run per step, closed with it, found by its tags; checked in a real tracking store."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from polar_pipeline.tracking.base import NullTracker, Step
from polar_pipeline.tracking.runs import MlflowTracker

STEP = Step(asset="thresholds", partition="deu", dagster_run="run-1", root_run="run-0", attempt=2, backfill="back")


def tracker(home: Path) -> MlflowTracker:
    return MlflowTracker(home / "mlflow.db", home / "artifacts", "polar", "http://mlflow", "http://dagster/")


def runs(home: Path) -> list[Run]:
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("polar")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def test_a_step_becomes_a_finished_run_with_links_both_ways(tmp_path: Path) -> None:
    with tracker(tmp_path).step(STEP) as noted:
        noted.log(params={"folds": 5}, metrics={"macro_f1": 0.75})
        noted.log_data("posts-deu", "d" * 64)
    (run,) = runs(tmp_path)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "thresholds[deu]"
    assert (run.data.params, run.data.metrics) == ({"folds": "5"}, {"macro_f1": 0.75})
    expected = {
        "dagster.run_id": "run-1",
        "dagster.root_run_id": "run-0",
        "dagster.asset": "thresholds",
        "dagster.partition": "deu",
    }
    expected |= {"dagster.attempt": "2", "dagster.backfill": "back", "dagster.url": "http://dagster/runs/run-1"}
    assert expected.items() <= run.data.tags.items()
    (dataset,) = run.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("posts-deu", "d" * 36)
    assert noted.links["mlflow_run_id"] == run.info.run_id
    assert noted.links["mlflow_url"].startswith("http://mlflow/#/experiments/")


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_whatever_interrupts_the_step_fails_the_run_and_keeps_what_was_noted(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    with pytest.raises(interruption), tracker(tmp_path).step(STEP) as noted:
        noted.log(metrics={"loss": 1.0})
        raise interruption
    (run,) = runs(tmp_path)
    assert (run.info.status, run.data.metrics) == ("FAILED", {"loss": 1.0})


def test_what_a_killed_attempt_left_open_is_closed_by_the_next_and_by_the_sensor(tmp_path: Path) -> None:
    open_ended = tracker(tmp_path)
    client, experiment = open_ended.connect()
    client.create_run(experiment, tags=STEP.tags)
    other = Step(asset="thresholds", partition="swa", dagster_run="run-2", root_run="run-2", attempt=1)
    client.create_run(experiment, tags=other.tags)
    with open_ended.step(STEP):
        assert sorted(run.info.status for run in runs(tmp_path)) == ["KILLED", "RUNNING", "RUNNING"]
    assert open_ended.close_killed("run-2") == 1
    assert open_ended.close_killed("run-2") == 0
    assert sorted(run.info.status for run in runs(tmp_path)) == ["FINISHED", "KILLED", "KILLED"]


def _one_step(home: Path, number: int) -> None:
    with tracker(home).step(Step(asset="a", partition=str(number), dagster_run="r", root_run="r", attempt=1)):
        pass


@pytest.mark.slow
def test_processes_that_first_touch_an_empty_store_do_not_collide(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_one_step, args=(tmp_path, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert len(runs(tmp_path)) == 4


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 1, 5, 20])
def test_a_home_that_was_killed_in_the_first_migration_works_again(tmp_path: Path, after: int) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_die_in_migration, args=(tmp_path, after))
    process.start()
    process.join(120)
    assert process.exitcode == -9
    assert list(tmp_path.glob(".mlflow.db.*")) and not (tmp_path / "mlflow.db").exists()
    with tracker(tmp_path).step(STEP):
        pass
    assert [run.info.status for run in runs(tmp_path)] == ["FINISHED"]
    assert not list(tmp_path.glob(".mlflow.db.*"))


def _die_in_migration(home: Path, after: int) -> None:
    """SIGKILL once so many tables were made."""
    from alembic.operations import Operations

    create, count = Operations.create_table, 0

    def counted(self: Operations, *given: object, **named: object) -> object:
        nonlocal count
        count += 1
        if count > after:
            os.kill(os.getpid(), signal.SIGKILL)
        return create(self, *given, **named)

    Operations.create_table = counted  # type: ignore[method-assign]
    tracker(home).connect()


def test_the_null_tracker_has_the_same_face() -> None:
    with NullTracker().step(STEP) as noted:
        noted.log(params={"a": 1})
    assert noted.links == {}
    assert NullTracker().close_killed("run-1") == 0
