"""One MLflow run per step, closed with it, under one per pipeline run and language, in a real tracking store."""

import json
import logging
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient

from polar_pipeline.errors import InputError
from polar_pipeline.tracking.base import TrackedRun, TrackedStep, Tracker
from polar_pipeline.tracking.mlflow_tracker import (
    ARTIFACT_BYTES,
    HOST_TAG,
    PROCESS,
    STARTED,
    MlflowTracker,
    process_tags,
)
from polar_pipeline_tests.tracking.stores import STEP, all_runs, another, mlflow_server, parents, steps, tracker


def test_a_step_becomes_a_finished_run_with_links_both_ways(tmp_path: Path) -> None:
    with tracker(tmp_path).step(STEP) as run:
        run.log(params={"folds": 5, "long": "x" * 7000}, metrics={"macro_f1": 0.75})
    (found,) = steps(tmp_path)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "thresholds[deu]")
    assert (found.data.params, found.data.metrics) == ({"folds": "5", "long": "x" * 6000}, {"macro_f1": 0.75})
    expected = {
        "dagster.run_id": "run-1",
        "dagster.root_run_id": "run-0",
        "dagster.asset": "thresholds",
        "dagster.partition": "deu",
        "dagster.attempt": "2",
        "dagster.backfill": "back",
        "profile": "cpu",
        "language": "deu",
        "fingerprint": "abc",
        "mlflow.note.content": "[Dagster run](/polar/dagster/runs/run-1)",
    }
    assert expected.items() <= found.data.tags.items()
    assert process_tags().items() <= found.data.tags.items()
    assert run.links == {
        "mlflow_run_id": found.info.run_id,
        "mlflow_url": f"/polar/mlflow/runs/{found.info.run_id}",
    }


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_whatever_interrupts_the_step_fails_the_run_and_keeps_what_was_recorded(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    with pytest.raises(interruption), tracker(tmp_path).step(STEP) as run:
        run.log(metrics={"loss": 1.0})
        run.log_artifact("note.txt", b"kept")
        raise interruption
    (found,) = steps(tmp_path)
    assert (found.info.status, found.data.metrics) == ("FAILED", {"loss": 1.0})
    assert artifacts(tmp_path, found.info.run_id) == {"note.txt": b"kept"}


def artifacts(home: Path, run_id: str) -> dict[str, bytes]:
    folder = home / "mlflow" / run_id / "artifacts"
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_artifacts_are_files_of_the_run_and_have_a_bound(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mine = tracker(tmp_path)
    with mine.step(STEP) as run:
        run.log_artifact("decision.json", b"{}")
        run.log_artifact("plots/curve.png", b"png")
        for name in ("/etc/passwd", "../x", "a/../../x", ""):
            with pytest.raises(ValueError, match="relative path"):
                run.log_artifact(name, b"")
    assert artifacts(tmp_path, run.links["mlflow_run_id"]) == {"decision.json": b"{}", "plots/curve.png": b"png"}
    with mine.step(STEP) as run:
        run.log_artifact("big", b"0" * (ARTIFACT_BYTES + 1))
    assert artifacts(tmp_path, run.links["mlflow_run_id"]) == {}
    assert [run.info.status for run in steps(tmp_path)] == ["FINISHED", "FINISHED"]
    assert "bytes of artifacts" in caplog.text


def test_data_is_recorded_by_digest_columns_and_rows_without_its_texts(tmp_path: Path) -> None:
    posts = pd.DataFrame(
        {"id": ["a", "b"], "text": ["a bluebird", "another bluebird"], "label": [1.0, None], "fold": 0}
    )
    with tracker(tmp_path).step(STEP) as run:
        run.log_data("posts-deu", "d" * 64, posts)
        run.log_data("posts-deu", "e" * 64, context="evaluation")
    (found,) = steps(tmp_path)
    whole, digest_only = sorted(found.inputs.dataset_inputs, key=lambda item: item.dataset.digest)
    assert (whole.dataset.name, whole.dataset.digest) == ("posts-deu", "d" * 36)
    columns = json.loads(whole.dataset.schema)["mlflow_colspec"]
    assert [(column["name"], column["type"]) for column in columns] == [
        ("id", "string"), ("text", "string"), ("label", "double"), ("fold", "long"),
    ]  # fmt: skip
    assert json.loads(whole.dataset.profile) == {"num_rows": 2, "num_elements": 8}
    assert [item.tags[0].value for item in (whole, digest_only)] == ["training", "evaluation"]
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert "bluebird" not in "\n".join(database.iterdump())


def test_steps_of_a_pipeline_run_and_language_have_one_parent_with_the_figures(tmp_path: Path) -> None:
    mine = tracker(tmp_path)
    with mine.step(STEP) as run:
        assert [parent.info.status for parent in parents(tmp_path)] == ["RUNNING"]
        run.summary({"macro_f1": 0.8, "macro_f1_low": 0.7}, {"strategy": "fixed", "fingerprint": "profile"})
    with mine.step(another("ensemble_predictions")) as run:
        run.summary({"macro_f1_dev": 0.9})
    with mine.step(another(partition="swa")), mine.step(another("benchmark_report", None)):
        pass
    with mine.step(another(run="run-2", root="run-2")):
        pass
    mine.end_pipeline("run-0")
    by_name = {(parent.info.run_name, parent.data.tags["dagster.root_run_id"]): parent for parent in parents(tmp_path)}
    assert {key: parent.info.status for key, parent in by_name.items()} == {
        ("pipeline[deu]", "run-0"): "FINISHED",
        ("pipeline[swa]", "run-0"): "FINISHED",
        ("pipeline", "run-0"): "FINISHED",
        ("pipeline[deu]", "run-2"): "RUNNING",
    }
    first = by_name["pipeline[deu]", "run-0"]
    assert first.data.metrics == {"macro_f1": 0.8, "macro_f1_low": 0.7, "macro_f1_dev": 0.9}
    expected = {"strategy": "fixed", "fingerprint": "profile", "profile": "cpu", "language": "deu"}
    assert expected.items() <= first.data.tags.items()
    children = [
        run.info.run_name for run in steps(tmp_path) if run.data.tags["mlflow.parentRunId"] == first.info.run_id
    ]
    assert sorted(children) == ["ensemble_predictions[deu]", "thresholds[deu]"]


@pytest.mark.parametrize(
    ("failing", "failed", "status"),
    [([], False, "FINISHED"), ([1], False, "FINISHED"), ([2], False, "FAILED"), ([1, 2], False, "FAILED"),
     ([], True, "FAILED")],
)  # fmt: skip
def test_a_parent_fails_if_the_last_attempt_of_a_step_did_or_the_run_did_otherwise(
    tmp_path: Path, failing: list[int], failed: bool, status: str
) -> None:
    mine = tracker(tmp_path)
    for attempt in (1, 2):
        try:
            with mine.step(another()):
                assert attempt not in failing
        except AssertionError:
            pass
    mine.end_pipeline("run-0", failed)
    assert [parent.info.status for parent in parents(tmp_path)] == [status]


def test_processes_of_one_run_share_its_parent_which_is_open_while_one_of_them_works(tmp_path: Path) -> None:
    one, other = tracker(tmp_path), tracker(tmp_path)
    with one.step(another("a")), other.step(another("b")):
        pass
    with one.step(another("c")):
        other.end_pipeline("run-0")
        assert [parent.info.status for parent in parents(tmp_path)] == ["RUNNING"]
    one.end_pipeline("run-0")
    assert [parent.info.status for parent in parents(tmp_path)] == ["FINISHED"]
    with tracker(tmp_path).step(another("a", run="run-3")):  # the run is executed again from its failure
        assert [parent.info.status for parent in parents(tmp_path)] == ["RUNNING"]


# Killed processes


def open_run(home: Path, changes: dict[str, str], step: TrackedStep = STEP) -> str:
    """A run that somebody left open."""
    client, experiment = tracker(home).connect()
    run_id: str = client.create_run(experiment, tags=step.run_tags | process_tags() | changes).info.run_id
    return run_id


def dead_process() -> str:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return str(process.pid)


def test_a_step_leaves_an_open_run_of_the_same_step_in_another_process_alone(tmp_path: Path) -> None:
    one, other = tracker(tmp_path), tracker(tmp_path)
    with one.step(STEP):
        with other.step(STEP):
            assert [run.info.status for run in steps(tmp_path)] == ["RUNNING", "RUNNING"]
        assert other.close_killed() == 0
    assert [run.info.status for run in steps(tmp_path)] == ["FINISHED", "FINISHED"]


def test_runs_whose_process_is_gone_are_killed_and_no_others(tmp_path: Path) -> None:
    left = {
        "gone": open_run(tmp_path, {PROCESS: dead_process()}),
        "reused": open_run(tmp_path, {STARTED: f"{psutil.Process().create_time() - 60:.2f}"}),
    }
    kept = {
        "alive": open_run(tmp_path, {}),
        "elsewhere": open_run(tmp_path, {HOST_TAG: "another-host", PROCESS: dead_process()}),
    }
    status = {run.info.run_id: run.info.status for run in all_runs(tmp_path)}
    assert {status[run] for run in kept.values()} == {"RUNNING"}
    tracker(tmp_path).close_killed()
    status = {run.info.run_id: run.info.status for run in all_runs(tmp_path)}
    assert {name: status[run] for name, run in (left | kept).items()} == {
        "gone": "KILLED", "reused": "KILLED", "alive": "RUNNING", "elsewhere": "RUNNING",
    }  # fmt: skip
    assert tracker(tmp_path).close_killed("run-1") == 2
    assert tracker(tmp_path).close_killed("run-1") == 0
    assert {run.info.status for run in all_runs(tmp_path)} == {"KILLED"}


def test_a_zombie_is_gone(tmp_path: Path) -> None:
    mine = tracker(tmp_path)
    mine.connect()
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    started = f"{psutil.Process(process.pid).create_time():.2f}"
    open_run(tmp_path, {PROCESS: str(process.pid), STARTED: started})
    assert mine.close_killed() == 0
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
    assert mine.close_killed() == 1
    process.wait()


def test_a_parent_stays_open_while_any_process_works_below_it(tmp_path: Path) -> None:
    client, experiment = tracker(tmp_path).connect()
    owner = process_tags() | {PROCESS: dead_process()}
    parent = client.create_run(experiment, tags=owner | {"polar.kind": "pipeline"}).info.run_id
    client.create_run(experiment, tags=process_tags() | {"mlflow.parentRunId": parent})
    assert tracker(tmp_path).close_killed() == 0
    assert {run.info.status for run in all_runs(tmp_path)} == {"RUNNING"}


def _work_until_killed(home: Path) -> None:
    with tracker(home).step(STEP):
        (home / "working").touch()
        time.sleep(60)


def test_what_a_killed_process_left_open_is_closed_by_the_next_that_starts(tmp_path: Path) -> None:
    tracker(tmp_path).connect()
    process = multiprocessing.get_context("spawn").Process(target=_work_until_killed, args=(tmp_path,))
    process.start()
    while not (tmp_path / "working").exists():
        assert process.is_alive()
        time.sleep(0.1)
    process.kill()
    process.join()
    assert {run.info.status for run in all_runs(tmp_path)} == {"RUNNING"}
    with tracker(tmp_path).step(another("b", run="run-9", root="run-9")):
        pass
    assert [run.info.status for run in all_runs(tmp_path)] == ["KILLED", "KILLED", "RUNNING", "FINISHED"]


# Failures of the store never stop or hide a step


def broken(mine: MlflowTracker) -> None:
    """Let the database say that the disk is full, as sqlite does it."""
    from sqlalchemy import event

    client: Any = mine.connect()[0]
    engine = client._tracking_client.store.engine
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count=1"))
    engine.dispose()


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name.startswith("polar_pipeline")]


@pytest.mark.parametrize("fails", [False, True])
def test_a_full_disk_in_the_middle_is_one_warning_and_the_next_step_is_tracked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    mine = tracker(tmp_path)
    result = []

    def work() -> None:
        with mine.step(STEP) as run:
            broken(mine)
            for number in range(3):
                run.measure(number, {"loss": 1.0})
            run.log(params={f"p{n}": "x" * 6000 for n in range(50)})
            run.summary({"macro_f1": 0.5})
            if fails:
                raise LookupError("the step's own")
            result.append(1)

    if fails:
        with pytest.raises(LookupError, match="the step's own"):
            work()
    else:
        work()
        assert result == [1]
    (warning,) = warnings_of(caplog)
    assert "thresholds[deu]" in warning and "disk is full" in warning
    with mine.step(another("next")) as run:
        run.log(metrics={"posts": 1})
    assert steps(tmp_path)[-1].data.metrics == {"posts": 1} and len(warnings_of(caplog)) == 1


@pytest.mark.parametrize("deleted", ["run", "parent", "experiment"])
def test_what_was_deleted_in_mlflows_page_stops_nothing_and_is_there_again_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, deleted: str
) -> None:
    mine = tracker(tmp_path)
    with mine.step(STEP) as run:
        client, experiment = mine.connect()
        if deleted == "experiment":
            client.delete_experiment(experiment)
        else:
            (found,) = steps(tmp_path) if deleted == "run" else parents(tmp_path)
            client.delete_run(found.info.run_id)
        run.log(metrics={"a": 1})
        run.summary({"macro_f1": 0.5})
    for name in ("second", "third"):
        with mine.step(another(name)) as run:
            run.summary({"macro_f1": 0.6})
    assert len(warnings_of(caplog)) == 1
    assert (steps(tmp_path)[-1].info.run_name, steps(tmp_path)[-1].info.status) == ("third[deu]", "FINISHED")
    assert parents(tmp_path)[-1].data.metrics == {"macro_f1": 0.6}


def test_an_experiment_that_was_deleted_before_is_restored(tmp_path: Path) -> None:
    client, experiment = tracker(tmp_path).connect()
    client.delete_experiment(experiment)
    with tracker(tmp_path).step(STEP):
        pass
    assert [run.info.status for run in steps(tmp_path)] == ["FINISHED"]
    assert tracker(tmp_path).connect()[1] == experiment


def test_a_server_that_does_not_answer_is_a_sentence_without_the_password(tmp_path: Path) -> None:
    absent = MlflowTracker("http://me:secret@127.0.0.1:9", tmp_path / "mlflow", "polar")
    started = time.monotonic()
    message = r"store http://127\.0\.0\.1:9 cannot be used .* MLFLOW_TRACKING_URI"
    with pytest.raises(InputError, match=message) as error, absent.step(STEP):
        raise AssertionError("not reached")
    assert time.monotonic() - started < 20
    assert "secret" not in str(error.value) and "cannot be used ([Errno 111] Connection refused): start" in str(
        error.value
    )


@pytest.mark.slow
def test_a_server_that_dies_in_the_middle_of_a_step_hides_neither_result_nor_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker(tmp_path).connect()
    posts = pd.DataFrame({"text": ["a"]})
    with mlflow_server(tmp_path) as (address, process):
        remote = MlflowTracker(f"{address}/", tmp_path / "mlflow", "polar", dagster_ui="https://dagster.example/")
        with remote.step(STEP) as run:
            run.log(metrics={"a": 1})
            run.log_data("posts", "d", posts)
            run.log_artifact("a.txt", b"a")
        _, experiment = remote.connect()
        run_id = run.links["mlflow_run_id"]
        assert run.links["mlflow_url"] == f"{address}/#/experiments/{experiment}/runs/{run_id}"
        (found,) = steps(tmp_path)
        assert found.data.tags["mlflow.note.content"] == "[Dagster run](https://dagster.example/runs/run-1)"
        assert MlflowClient(address).list_artifacts(run_id)[0].path == "a.txt"
        with pytest.raises(LookupError, match="own"), remote.step(another("b")) as run:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            run.log(metrics={"a": 1})
            raise LookupError("own")
        started = time.monotonic()
        with remote.step(another("c")) as run:
            assert run.links == {}
        remote.end_pipeline("run-0")
        assert time.monotonic() - started < 30
    assert len(warnings_of(caplog)) == 3


def test_the_warning_is_the_only_line(tmp_path: Path) -> None:
    """MLflow and SQLAlchemy would print tracebacks of their own."""
    script = (
        "import pathlib\n"
        "from polar_pipeline_tests.tracking.test_mlflow_tracker import STEP, broken, tracker\n"
        f"mine = tracker(pathlib.Path({str(tmp_path)!r}))\n"
        "with mine.step(STEP) as run:\n"
        "    broken(mine)\n"
        "    run.log(params={'p': 'x' * 6000}, metrics={'a': 1})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("MLflow has no full record of thresholds[deu]")


def test_the_plain_tracker_keeps_nothing() -> None:
    with Tracker().step(STEP) as run:
        run.log(params={"a": 1})
        run.log_artifact("a", b"")
        run.summary({"a": 1})
    assert isinstance(run, TrackedRun) and run.links == {}
    Tracker().end_pipeline("run-0")
    assert Tracker().close_killed("run-1") == Tracker().close_killed() == 0
    assert logging.getLogger("polar_pipeline.tracking").level == logging.NOTSET
