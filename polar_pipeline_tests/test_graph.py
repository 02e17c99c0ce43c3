"""The whole graph, as a user runs it: processes, a home, the bundled corpus. What it leaves, and what cannot change it."""

import csv
import hashlib
import io
import os
import shutil
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
from polar_pipeline.settings.profile import load_profile
from polar_pipeline.settings.yaml_files import commented
from polar_pipeline_tests.conftest import ASSETS, CODES, polar

pytestmark = pytest.mark.slow


def digests(home: Path) -> dict[str, str]:
    """sha256 of everything that must be the same bytes every time: all but what it took to make it."""
    files = [*home.glob("predictions/*.csv"), *home.glob("artifacts/**/*.parquet"), *home.glob("artifacts/**/*.json")]
    files += [*home.glob("artifacts/**/*.safetensors"), home / "submission.zip", home / "report" / "index.html"]
    files = [file for file in files if "figures" not in file.parts]
    return {str(file.relative_to(home)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture
def own_corpus(tmp_path: Path) -> Path:
    """A copy of the bundled corpus as a release of one's own, and a profile that reads it."""
    for split in ("train", "dev", "test"):
        shutil.copytree(bundled_folder() / split, tmp_path / "release" / split)
    (tmp_path / "own.yaml").write_text(linear_alone(data="release"), encoding="utf-8")
    return tmp_path


def linear_alone(**changes: object) -> str:
    """The demo's settings under another name, without its tiny Gemma, which the runs of the demo itself show."""
    demo = load_profile("demo")
    return commented(demo.model_copy(update={"name": "own", "backbones": demo.backbones[:1], **changes}))


def run_own(folder: Path, home: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    profile = ("--profile", str(folder / "own.yaml"))
    return polar(folder / home, "run", *profile, *arguments, check=check, POLAR_DATA_DIR=str(folder / "release"))


def test_what_a_run_leaves(finished_home: Path) -> None:
    assert {file.name for file in finished_home.iterdir()} >= {
        "dagster", "mlflow.db", "artifacts", "predictions", "submission.zip", "report",
    }  # fmt: skip
    for code in CODES:
        with (finished_home / "predictions" / f"{code}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        with (bundled_folder() / "test" / f"{code}.csv").open(newline="") as file:
            assert [row["id"] for row in rows] == [row["id"] for row in csv.DictReader(file)]
        assert {row["polarization"] for row in rows} == {"0", "1"}
        with zipfile.ZipFile(finished_home / "submission.zip") as archive:
            submitted = list(csv.DictReader(io.StringIO(archive.read(f"subtask_1/pred_{code}.csv").decode())))
        assert submitted == [{"id": row["id"], "polarization": row["polarization"]} for row in rows]
    assert not [file for file in finished_home.rglob("*") if file.suffix in {".pkl", ".pickle", ".joblib", ".pt"}]


def test_the_instance_knows_every_partition_check_and_run(finished_home: Path) -> None:
    with dg.DagsterInstance.from_config(str(finished_home / "dagster")) as instance:
        for asset in ASSETS:
            assert instance.get_materialized_partitions(dg.AssetKey(asset)) == set(CODES)
        jobs = Counter(run.job_name for run in instance.get_runs())
        check = dg.AssetCheckKey(dg.AssetKey("raw_posts"), "no_canary")
        records = instance.event_log_storage.get_asset_check_execution_history(check, limit=10)
        event = instance.get_latest_materialization_event(dg.AssetKey("ensemble_predictions"))
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


def test_order_parallelism_and_a_second_run_change_no_byte(finished_home: Path, own_corpus: Path) -> None:
    home = own_corpus / "other"
    polar(home, "run", "--profile", "demo", "--language", "hin", "--language", "deu", "--jobs", "1")
    polar(home, "run", "--profile", "demo", "--language", "eng", "--jobs", "1")
    expected = digests(finished_home)
    assert digests(home) == expected
    polar(home, "run", "--profile", "demo", "--all", "--jobs", "2")
    assert digests(home) == expected


def test_labels_of_test_move_nothing_but_the_report(own_corpus: Path) -> None:
    files = sorted((own_corpus / "release" / "test").glob("*.csv"))
    seen = {}
    for name in ("present", "absent", "replaced"):
        if name != "present":
            for file in files:
                _relabel(file, "" if name == "absent" else "1")
        run_own(own_corpus, name, "--all")
        seen[name] = {
            path: digest for path, digest in digests(own_corpus / name).items() if not path.startswith("report")
        }
    assert seen["present"] == seen["absent"] == seen["replaced"]
    pages = [(own_corpus / name / "report" / "index.html").read_text() for name in seen]
    assert len(set(pages)) == 3


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


def test_one_bad_language_is_named_and_the_others_finish(own_corpus: Path) -> None:
    train = own_corpus / "release" / "train" / "deu.csv"
    train.write_text(train.read_text().replace("deu_", "xxx_", 1))
    done = run_own(own_corpus, "home", "--all", check=False)
    assert done.returncode == 2
    assert "polar: deu: " in done.stderr and str(train) in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(file.stem for file in (own_corpus / "home" / "predictions").iterdir()) == ["eng", "hin"]
    page = (own_corpus / "home" / "report" / "index.html").read_text()
    assert "raw_posts, thresholds, ensemble_predictions not materialized yet" in page


def test_a_stale_decision_is_left_out_of_the_report_and_named(own_corpus: Path) -> None:
    run_own(own_corpus, "home", "--all")
    profile = own_corpus / "own.yaml"
    profile.write_text(profile.read_text().replace("  resamples: 200\n", "  resamples: 100\n"))
    run_own(own_corpus, "home", "--language", "eng")
    page = (own_corpus / "home" / "report" / "index.html").read_text()
    assert "its decision was made with other settings" in page
    with zipfile.ZipFile(own_corpus / "home" / "submission.zip") as archive:
        assert archive.namelist() == ["subtask_1/pred_eng.csv"]


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
    first = {file.name: file.read_bytes() for file in (home / "predictions").iterdir()}
    done = polar(home, "run", "--all", "--profile", "demo", "--resume")
    assert "finished before: " in done.stdout
    assert {name: (home / "predictions" / name).read_bytes() for name in first} == first
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        statuses = Counter(run.status.value for run in instance.get_runs())
    assert statuses["FAILURE"] == 1 and statuses["STARTED"] == 0
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("polar")
    assert experiment is not None
    assert "RUNNING" not in {run.info.status for run in client.search_runs([experiment.experiment_id])}
    again = polar(home, "run", "--all", "--profile", "demo", "--resume")
    assert "finished before: eng, deu, hin" in again.stdout


def _wait_for_second_language(home: Path) -> None:
    """Until a second Dagster run has begun, so that the kill leaves one open."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
            if len(instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))) == 1:
                return
        time.sleep(0.05)
    raise AssertionError("no second language was started")
