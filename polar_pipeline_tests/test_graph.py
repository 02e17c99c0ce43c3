"""The whole graph, as a user runs it, over the bundled corpus: what it leaves, and what cannot change that."""

import csv
import hashlib
import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path

import dagster as dg
import pytest
from mlflow import MlflowClient

from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline_tests.conftest import ASSETS, CODES, Site, computed, polar

pytestmark = pytest.mark.slow


def digests(home: Path) -> dict[str, str]:
    """sha256 of everything that must be the same bytes every time: all but the histories of Dagster and MLflow."""
    files = [file for folder in ("profiles", "adapters") for file in (home / folder).rglob("*") if file.is_file()]
    # what training took, a cache by time of files, and the path of the profile's file
    others = {"file_hashes.json", "profile.json"}
    files = [file for file in files if "figures" not in file.parts and file.name not in others]
    return {str(file.relative_to(home)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_what_a_run_leaves(finished_home: Path) -> None:
    assert {"dagster", "mlflow.db", "adapters", "profiles"} <= {file.name for file in finished_home.iterdir()}
    results = finished_home / "profiles" / "demo"
    assert {"tables", "predictions", "review", "submission.zip", "report"} <= {file.name for file in results.iterdir()}
    for code in CODES:
        with (results / "predictions" / f"{code}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        with (bundled_folder() / "test" / f"{code}.csv").open(newline="") as file:
            assert [row["id"] for row in rows] == [row["id"] for row in csv.DictReader(file)]
        assert {row["polarization"] for row in rows} == {"0", "1"}
        with zipfile.ZipFile(results / "submission.zip") as archive:
            submitted = list(csv.DictReader(io.StringIO(archive.read(f"subtask_1/pred_{code}.csv").decode())))
        assert submitted == [{"id": row["id"], "polarization": row["polarization"]} for row in rows]
    assert not [file for file in finished_home.rglob("*") if file.suffix in {".pkl", ".pickle", ".joblib", ".pt"}]


def test_the_instance_knows_every_partition_check_and_run(finished_home: Path) -> None:
    with dg.DagsterInstance.from_config(str(finished_home / "dagster")) as instance:
        for asset in ASSETS:
            assert instance.get_materialized_partitions(dg.AssetKey(["demo", asset])) == set(CODES)
        jobs = Counter(run.job_name for run in instance.get_runs())
        check = dg.AssetCheckKey(dg.AssetKey(["demo", "raw_posts"]), "no_canary")
        records = instance.event_log_storage.get_asset_check_execution_history(check, limit=10)
        event = instance.get_latest_materialization_event(dg.AssetKey(["demo", "ensemble_predictions"]))
    assert jobs == {"language_pipeline": 3, "report": 1}
    assert {(record.partition, record.status.value) for record in records} == {(code, "SUCCEEDED") for code in CODES}
    assert event is not None and event.asset_materialization is not None
    assert {"mlflow_run_id", "mlflow_url", "dagster/partition_row_count", "dagster/column_schema", "evidence"} <= set(
        event.asset_materialization.metadata
    )


def test_mlflow_has_each_step_once_finished_with_its_data(finished_home: Path) -> None:
    client = MlflowClient(f"sqlite:///{finished_home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("polar")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = {run.info.run_id: run for run in found if "mlflow.parentRunId" not in run.data.tags}
    runs = [run for run in found if run.info.run_id not in parents]
    expected = {(asset, code) for asset in ASSETS for code in CODES} | {("benchmark_report", ""), ("submission", "")}
    assert Counter((run.data.tags["dagster.asset"], run.data.tags["dagster.partition"]) for run in runs) == Counter(
        expected
    )
    assert {run.info.status for run in runs} == {"FINISHED"}
    decisions = [run for run in runs if run.data.tags["dagster.asset"] == "thresholds"]
    assert all(0 < run.data.metrics["macro_f1_out_of_fold"] <= 1 for run in decisions)
    names = sorted(parent.info.run_name for parent in parents.values())
    assert names == ["pipeline", *(f"pipeline[{code}]" for code in sorted(CODES))]
    assert {parent.info.status for parent in parents.values()} == {"FINISHED"}
    for run in runs:
        parent = parents[run.data.tags["mlflow.parentRunId"]]
        assert parent.data.tags["dagster.partition"] == run.data.tags["dagster.partition"]
    for run in decisions:
        parent = parents[run.data.tags["mlflow.parentRunId"]]
        assert parent.data.metrics["macro_f1"] == run.data.metrics["macro_f1_out_of_fold"]
        assert parent.data.metrics["macro_f1_low"] <= parent.data.metrics["macro_f1"]
        assert {"profile", "strategy", "fingerprint", "language"} <= set(parent.data.tags)
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert files == {"decision.json", "confusion_matrix.json", "confusion_matrix.png"}
    (report,) = [run for run in runs if run.data.tags["dagster.asset"] == "benchmark_report"]
    assert [file.path for file in client.list_artifacts(report.info.run_id)] == ["report.html"]
    assert "macro_f1" in parents[report.data.tags["mlflow.parentRunId"]].data.metrics
    adapters = [run for run in runs if run.data.tags["dagster.asset"] == "linear_adapter"]
    assert len({run.inputs.dataset_inputs[0].dataset.digest for run in adapters}) == 3


def test_order_parallelism_and_a_second_run_change_no_byte(finished_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "other"
    polar(home, "run", "--profile", "demo", "--language", "hin", "--language", "deu", "--jobs", "1")
    polar(home, "run", "--profile", "demo", "--language", "eng", "--jobs", "1")
    expected = digests(finished_home)
    assert digests(home) == expected
    polar(home, "run", "--profile", "demo", "--all", "--jobs", "2", "--force")
    assert digests(home) == expected


def test_labels_of_test_move_nothing_but_the_report(tmp_path: Path) -> None:
    seen, pages = [], set()
    site = Site.make(tmp_path / "present")
    for name, value in (("present", None), ("absent", ""), ("replaced", "1")):
        site = site if value is None else site.copy(tmp_path / name)
        for file in sorted((site.release / "test").glob("*.csv")):
            if value is not None:
                _relabel(file, value)
        site.run("--force")
        # what a table was made from names the files of the release, which differ here
        found = digests(site.home)
        seen.append({path: found[path] for path in found if "/report/" not in path and "provenance" not in path})
        pages.add((site.results() / "report" / "index.html").read_text())
    assert seen[0] == seen[1] == seen[2] and len(pages) == 3


def _relabel(file: Path, value: str) -> None:
    with file.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    with file.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0].keys())
        writer.writeheader()
        writer.writerows(
            {
                key: value if key in rows[0] and key not in ("id", "text", "canary") else cell
                for key, cell in row.items()
            }
            for row in rows
        )


def test_a_killed_run_is_marked_and_the_next_goes_on_where_it_stopped(tmp_path: Path) -> None:
    home = tmp_path / "home"
    variables = {**os.environ, "POLAR_HOME": str(home)}
    command = [sys.executable, "-m", "polar_pipeline", "run", "--all", "--profile", "demo", "--jobs", "1"]
    process = subprocess.Popen(command, env=variables, start_new_session=True, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("[1/3]"):
            break
    _wait_for_second_language(home)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    predictions = home / "profiles" / "demo" / "predictions"
    first, before = {file.name: file.read_bytes() for file in predictions.iterdir()}, computed(home)
    done = polar(home, "run", "--all", "--profile", "demo")
    assert "1 of 3 languages are current" in done.stdout
    assert {name: (predictions / name).read_bytes() for name in first} == first
    assert {code for _, code in computed(home) - before} == {"deu", "hin", ""}
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        statuses = Counter(run.status.value for run in instance.get_runs())
    assert statuses["FAILURE"] == 1 and statuses["STARTED"] == 0
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("polar")
    assert experiment is not None
    assert "RUNNING" not in {run.info.status for run in client.search_runs([experiment.experiment_id])}
    assert "3 of 3 languages are current" in polar(home, "run", "--all", "--profile", "demo").stdout


def _wait_for_second_language(home: Path) -> None:
    """Until a second Dagster run has begun, so that the kill leaves one open."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
            if len(instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))) == 1:
                return
        time.sleep(0.05)
    raise AssertionError("no second language was started")
