"""Languages that fail and workers that are killed: the others go on, and what is left is named with its command."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections import Counter
from contextlib import closing
from pathlib import Path

import dagster as dg
import psutil
import pytest

from polar_pipeline_tests.conftest import Site, computed

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site.make(tmp_path)


def submitted(site: Site) -> list[str]:
    with zipfile.ZipFile(site.results() / "submission.zip") as archive:
        return sorted(archive.namelist())


def statuses(home: Path) -> tuple[Counter[str], Counter[str]]:
    """Dagster's and MLflow's runs by status."""
    with dg.DagsterInstance.from_config(str(home / "dagster")) as instance:
        runs = Counter(run.status.value for run in instance.get_runs())
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        return runs, Counter(status for (status,) in database.execute("SELECT status FROM runs"))


def test_a_language_that_fails_is_named_and_finished_by_the_printed_command(site: Site) -> None:
    train = site.release / "train" / "deu.csv"
    whole = train.read_text(encoding="utf-8")
    train.write_text(whole.replace("deu_", "xxx_", 1), encoding="utf-8")
    done = site.run(check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "polar: deu: " in done.stderr and str(train) in done.stderr
    assert "polar: not in the submission: deu; finish them with" in done.stderr
    (command,) = [line.strip() for line in done.stderr.splitlines() if line.startswith("  polar run ")]
    assert command.startswith("polar run --language deu --profile own.yaml")
    assert submitted(site) == ["subtask_1/pred_eng.csv"]
    page = (site.results() / "report" / "index.html").read_text(encoding="utf-8")
    assert "raw_posts: not made yet" in page
    again = site.run(check=False)  # what failed does not count as finished
    assert again.returncode == 1 and "1 of 2 languages are current" in again.stdout and "deu: " in again.stderr
    train.write_text(whole, encoding="utf-8")
    before = computed(site.home)
    site.polar(*command.split()[1:])
    assert submitted(site) == ["subtask_1/pred_deu.csv", "subtask_1/pred_eng.csv"]
    assert "eng" not in {code for _, code in computed(site.home) - before}


def test_bad_input_in_every_language_is_exit_code_2(site: Site) -> None:
    for code in ("deu", "eng"):
        (site.release / "test" / f"{code}.csv").write_text("id,words\n1,x\n", encoding="utf-8")
    done = site.run(check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "polar: deu: " in done.stderr and "polar: eng: " in done.stderr
    assert not (site.results() / "submission.zip").exists()


STARTED = """SELECT pid.value FROM runs JOIN run_tags partition ON partition.run_id = runs.run_id
             JOIN run_tags pid ON pid.run_id = runs.run_id
             WHERE runs.status = 'STARTED' AND partition.key = 'dagster/partition' AND partition.value = ?
             AND pid.key = 'polar/pid'"""
TRACKED = """SELECT runs.run_uuid FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid
             WHERE runs.status = 'RUNNING' AND tags.key = 'dagster.partition' AND tags.value = ?"""


def worker_of(home: Path, language: str) -> int:
    """The process that executes a language's run, once Dagster and MLflow both know that it has begun."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        found = [
            _first(home / "mlflow.db", TRACKED, language),
            _first(home / "dagster" / "history" / "runs.db", STARTED, language),
        ]
        if all(found):
            return int(str(found[1]))
        time.sleep(0.01)
    raise AssertionError(f"{language} was not started")


def _first(database: Path, query: str, language: str) -> str | None:
    if not database.exists():
        return None
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        try:
            found = connection.execute(query, (language,)).fetchone()
        except sqlite3.OperationalError:  # its tables are being made
            return None
    return found[0] if found else None


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_worker_that_is_killed_costs_its_language_alone(site: Site, jobs: str) -> None:
    """English comes first: with one job, German needs a new worker."""
    command = [sys.executable, "-m", "polar_pipeline", "run", "--all", "--profile", "own.yaml", "--jobs", jobs]
    variables = {**os.environ, "POLAR_HOME": str(site.home), "POLAR_DATA_DIR": str(site.release)}
    with subprocess.Popen(
        command, env=variables, cwd=site.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        worker = worker_of(site.home, "eng")
        assert worker in {child.pid for child in psutil.Process(process.pid).children()}
        os.kill(worker, signal.SIGKILL)
        said, complaints = process.communicate(timeout=600)
    assert process.returncode == 1 and "Traceback" not in complaints, complaints
    assert "polar: eng: its process was killed (SIGKILL" in complaints
    assert "polar run --language eng --profile own.yaml" in complaints
    assert "deu  macro-F1" in said and submitted(site) == ["subtask_1/pred_deu.csv"]
    assert (site.results() / "report" / "index.html").exists()
    runs, tracked = statuses(site.home)
    assert runs == {"SUCCESS": 2, "FAILURE": 1} and "RUNNING" not in tracked and tracked["KILLED"] >= 1
    before = computed(site.home)
    done = site.run()
    assert "1 of 2 languages are current" in done.stdout
    assert submitted(site) == ["subtask_1/pred_deu.csv", "subtask_1/pred_eng.csv"]
    assert {code for _, code in computed(site.home) - before} == {"eng", ""}
