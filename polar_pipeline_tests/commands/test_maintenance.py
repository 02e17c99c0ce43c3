"""`polar status`, `polar doctor` and `polar prune` on a real home: several runs of the linear backbone."""

import dataclasses
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from mlflow import MlflowClient

from polar_pipeline.commands.prune import unused_files
from polar_pipeline.defs.instance import open_instance
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.project import Project
from polar_pipeline.pretrained.encoder import cache_file
from polar_pipeline.settings.backbones import EncoderSettings
from polar_pipeline.storage.home import Home
from polar_pipeline.tracking.store import open_store, sqlite_url
from polar_pipeline_tests.conftest import polar
from polar_pipeline_tests.defs.test_orphans import dead_tags, make, status_of
from polar_pipeline_tests.storage.test_lock import holder

PROFILE = """
name: small
data: bundled
languages: [deu, eng]
backbones: [{name: linear, kind: linear}]
"""
FORCED = 1  # runs after the first


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home after several runs; copied for each test."""
    folder = tmp_path_factory.mktemp("origin")
    (folder / "small.yaml").write_text(PROFILE)
    home, profile = folder / "home", str(folder / "small.yaml")
    polar(home, "run", "--all", "--profile", profile)
    for _ in range(FORCED):
        polar(home, "run", "--all", "--profile", profile, "--force")
    source = home / "profiles" / "small" / "profile.json"
    if not source.exists():
        source.write_text(json.dumps({"source": profile, "settings": {}}))
    return home


@pytest.fixture
def home(origin: Path, tmp_path: Path) -> Home:
    shutil.copytree(origin, tmp_path / "home")
    return Home(tmp_path / "home")


def profile_of(home: Home) -> str:
    return str(json.loads((home.results("small").settings).read_bytes())["source"])


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    found = {path: path.lstat() for path in sorted(folder.rglob("*"))}
    return {str(path.relative_to(folder)): (stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


def size(home: Home) -> int:
    return sum(path.stat().st_size for path in home.root.rglob("*") if path.is_file())


def experiment_of(client: MlflowClient) -> str:
    found = client.get_experiment_by_name("polar")
    assert found is not None
    return str(found.experiment_id)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_run_leaves_no_open_logs_behind(origin: Path) -> None:
    assert not list(origin.rglob("*-wal"))


def test_status_of_a_home_where_all_is_current(home: Home) -> None:
    before = tree(home.root)
    done = polar(home.root, "status", "--check")
    assert tree(home.root) == before
    assert f"home       {home.root}" in done.stdout and "at work    nobody" in done.stdout
    assert "2 of 2 languages current, report and submission current" in done.stdout
    assert "orphans    none" in done.stdout and f"{3 * (FORCED + 1)} SUCCESS" in done.stdout


def test_status_says_what_is_stale_and_why(home: Home) -> None:
    for code in ("deu", "eng"):
        (home.results("small").tables / "thresholds" / f"{code}.json").unlink()
    shutil.copytree(home.results("small").root, home.root / "profiles" / "other")
    (home.root / "profiles" / "other" / "profile.json").unlink()
    done = polar(home.root, "status")
    assert "0 of 2 languages current" in done.stdout
    assert "  eng, deu: thresholds: profiles/small/tables/thresholds/<language>.json is missing\n" in done.stdout
    assert "profile    other  not known: the profile file of other is unknown" in done.stdout
    assert polar(home.root, "status", "--check", check=False).returncode == 1


def test_languages_with_the_same_reasons_share_a_line(home: Home) -> None:
    profile = home.root.parent / "changed.yaml"
    profile.write_text(PROFILE + "seed: 7\n")
    home.results("small").settings.write_text(json.dumps({"source": str(profile), "settings": {}}))
    assert re.search(r"^ +eng, deu: .*seed is 7, was", polar(home.root, "status").stdout, re.MULTILINE)


def test_status_while_somebody_works_and_with_orphans(home: Home) -> None:
    with open_instance(home.dagster) as instance:
        run = make(instance, dg.DagsterRunStatus.STARTED, dead_tags())
    with holder("writing", home, "small") as other:
        before = tree(home.root)
        done = polar(home.root, "status")
        assert tree(home.root) == before
    assert f"polar run with profile small, process {other.pid}" in done.stdout
    assert "orphans    1 runs" in done.stdout and run in done.stdout


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs unshare, to mount a home read-only")
def test_status_of_a_read_only_home(home: Home) -> None:
    mounts = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"'
    shell = ["unshare", "--map-root-user", "--mount", "sh", "-c", mounts, "sh", str(home.root)]
    if subprocess.run([*shell, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a test mount anything")
    environment = {**os.environ, "POLAR_HOME": str(home.root)}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [*shell, sys.executable, "-m", "polar_pipeline", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    status, doctor = run("status", "--check"), run("doctor")
    assert status.returncode == 0 and "2 of 2 languages current" in status.stdout, status.stderr
    assert doctor.returncode == 3 and "cannot be written" in doctor.stdout and not doctor.stderr


def test_status_of_damaged_and_of_missing_homes(home: Home) -> None:
    (home.dagster / "history" / "runs.db").write_bytes(b"no database" * 1000)
    done = polar(home.root, "status")
    assert "runs       cannot be read (file is not a database): see `polar doctor`" in done.stdout
    assert "2 of 2 languages current" in done.stdout
    nowhere = home.root.parent / "nowhere"
    assert "does not exist" in polar(nowhere, "status").stdout
    assert polar(nowhere, "status", "--check", check=False).returncode == 1
    assert not nowhere.exists()


def test_prune_frees_what_its_dry_run_says_and_everything_stays_usable(home: Home) -> None:
    lineage = Lineage(Project.of_results(home, "small"))
    keys = [dg.AssetKey(["small", name]) for name in lineage.nodes]
    (home.root / "logs").mkdir(exist_ok=True)
    (home.root / "logs" / "daemon.log").write_text("new")
    (home.root / "logs" / "daemon.log.1").write_text("old")
    dry = polar(home.root, "prune", "--keep", "1", "--dry-run").stdout
    before = size(home)
    real = polar(home.root, "prune", "--keep", "1").stdout
    figures = re.compile(r"^(.*?)  +(\d.*B)$", re.MULTILINE)
    assert figures.findall(dry) == figures.findall(real) and len(figures.findall(real)) == 8
    assert f"{3 * FORCED} runs would be deleted in Dagster" in dry and f"{3 * FORCED} runs deleted in Dagster" in real
    told = re.search(r"^in all .*, ([\d.]+) MB$", real, re.MULTILINE)
    assert told and abs((before - size(home)) / 1e6 - float(told[1])) < 0.2
    assert (home.root / "logs" / "daemon.log").exists() and not (home.root / "logs" / "daemon.log.1").exists()

    with open_instance(home.dagster) as instance:
        assert len(instance.get_runs()) == 3
        assert all(instance.get_latest_materialization_event(key) for key in keys)
        shards = {path.stem for path in (home.dagster / "history" / "runs").glob("*-*.db")}
        assert shards == {run.run_id for run in instance.get_runs()}
        links = [instance.get_latest_materialization_event(key) for key in keys]
    client = open_store(sqlite_url(home.mlflow_database))
    for entry in links:
        assert entry and entry.asset_materialization
        client.get_run(str(entry.asset_materialization.metadata["mlflow_run_id"].value))  # raises if it is gone
    assert len(client.search_runs([experiment_of(client)])) < 30

    profile = profile_of(home)
    assert "2 of 2 languages are current" in polar(home.root, "run", "--all", "--profile", profile).stdout
    posts = home.root.parent / "posts.csv"
    posts.write_text("id,text\n1,Das ist ein Satz.\n")
    assert polar(home.root, "predict", str(posts), "--language", "deu", "--profile", profile).stdout.startswith("id,")
    assert "0 runs deleted" in polar(home.root, "prune", "--keep", "1").stdout
    assert polar(home.root, "doctor").stdout.count("ok") == 10


def test_the_newest_materialization_of_an_output_is_never_pruned(home: Home) -> None:
    with open_instance(home.dagster) as instance:
        first = instance.get_latest_materialization_event(dg.AssetKey(["small", "raw_posts"]))
    # only what is downstream of the audit is made again, several times
    for _ in range(2):
        (home.results("small").tables / "thresholds" / "deu.provenance.json").unlink()
        polar(home.root, "run", "--all", "--profile", profile_of(home))
    polar(home.root, "prune", "--keep", "1")
    with open_instance(home.dagster) as instance:
        now = instance.get_latest_materialization_event(dg.AssetKey(["small", "raw_posts"]))
        assert first and now and now.run_id == first.run_id and instance.has_run(first.run_id)
        for code in ("deu", "eng"):
            record = instance.get_latest_data_version_record(dg.AssetKey(["small", "linear_adapter"]), False, code)
            assert record is not None and instance.has_run(record.run_id)


def test_adapters_that_no_output_names_are_pruned(home: Home) -> None:
    (mine,) = (home.adapters / "linear" / "deu").iterdir()
    other = mine.with_name("0123456789abcdef")
    shutil.copytree(mine, other)
    assert "1 file" not in (text := polar(home.root, "prune").stdout) and re.search(r"adapters +2 files", text)
    assert mine.exists() and not other.exists()


def test_embeddings_that_no_profile_uses_are_pruned(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.embeddings.mkdir()
    encoder = EncoderSettings(name="encoder", kind="encoder", model="polar/open")
    used, other = home.embeddings / cache_file(encoder.encoding), home.embeddings / "0123456789abcdef.sqlite"
    used.write_bytes(b"of a profile's encoder")
    other.write_bytes(b"of a model that no profile names")
    assert unused_files(home)["embeddings"] == sorted([used, other])
    own = Project.of_results(home, "small")
    profile = own.profile.model_copy(update={"backbones": (*own.profile.backbones, encoder)})
    monkeypatch.setattr(Project, "of_results", lambda *_: dataclasses.replace(own, profile=profile))
    assert unused_files(home)["embeddings"] == [other]


def test_prune_refuses_while_somebody_works(home: Home) -> None:
    before = tree(home.root / "adapters"), tree(home.mlflow_artifacts)
    with holder("writing", home, "small") as other:
        done = polar(home.root, "prune", "--keep", "1", check=False)
    assert done.returncode != 0 and f"is in use by polar run with profile small, process {other.pid}" in done.stderr
    with open_instance(home.dagster) as instance:
        make(instance, dg.DagsterRunStatus.STARTED, dead_tags())
    done = polar(home.root, "prune", "--keep", "1", check=False)
    assert done.returncode != 0 and "1 runs in" in done.stderr and len(done.stderr.splitlines()) == 1
    assert (tree(home.root / "adapters"), tree(home.mlflow_artifacts)) == before


def test_doctor_finds_damaged_outputs_and_repairs_them(home: Home) -> None:
    results = home.results("small")
    flip(results.tables / "raw_posts" / "deu.parquet")
    (adapter,) = (home.adapters / "linear" / "eng").glob("*/adapter.safetensors")
    flip(adapter)
    flip(results.predictions("deu"))
    (results.tables / "corpus_audit" / "eng.provenance.json").unlink()
    (results.tables / "thresholds" / "eng.provenance.json").write_text("{}")
    left = results.tables / ".raw_posts.parquet.abcd1234"
    left.write_text("half")
    os.utime(left, (time.time() - 7200,) * 2)
    fresh = results.tables / ".new.parquet.abcd1234"
    fresh.write_text("half")
    before = tree(home.root / "profiles")
    found = polar(home.root, "doctor", check=False)
    assert found.returncode == 3 and not found.stderr
    assert tree(home.root / "profiles") == before
    names = (
        "raw_posts[deu]",
        "linear_adapter[eng]",
        "ensemble_predictions[deu]",
        "corpus_audit[eng]",
        "thresholds[eng]",
    )
    assert all(name in found.stdout for name in names)
    assert "1 temporary files" in found.stdout
    polar(home.root, "doctor", "--repair")
    assert polar(home.root, "doctor").stdout.count("ok") == 10
    assert fresh.exists() and not left.exists()
    profile = profile_of(home)
    assert "0 of 2 languages are current" in polar(home.root, "run", "--all", "--profile", profile).stdout
    polar(home.root, "status", "--check")


def test_doctor_closes_runs_whose_process_is_gone(home: Home) -> None:
    with open_instance(home.dagster) as instance:
        run = make(instance, dg.DagsterRunStatus.STARTED, dead_tags())
    client = open_store(sqlite_url(home.mlflow_database))
    experiment = experiment_of(client)
    opened = client.create_run(experiment, tags={"dagster.run_id": run}).info.run_id
    live = client.create_run(experiment, tags={"dagster.run_id": "another"}).info.run_id
    found = polar(home.root, "doctor", check=False)
    assert found.returncode == 3 and run in found.stdout and opened in found.stdout and live not in found.stdout
    polar(home.root, "doctor", "--repair")
    with open_instance(home.dagster) as instance:
        assert status_of(instance, run) == dg.DagsterRunStatus.FAILURE
    assert client.get_run(opened).info.status == "KILLED" and client.get_run(live).info.status == "RUNNING"


@pytest.mark.parametrize(
    "name", ["dagster/history/runs.db", "dagster/history/runs/index.db", "mlflow.db", "ledgers/ledger.db"]
)
def test_doctor_names_damaged_databases_and_deletes_none(home: Home, name: str) -> None:
    path = home.root / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"no database" * 1000)
    for arguments in (["doctor"], ["doctor", "--repair"]):
        done = polar(home.root, *arguments, check=False)
        assert done.returncode == 3 and str(path) in done.stdout and "Traceback" not in done.stderr
    assert path.read_bytes() == b"no database" * 1000


def test_doctor_knows_newer_databases_and_makes_missing_ones(home: Home) -> None:
    with closing(sqlite3.connect(home.dagster / "history" / "runs.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    (home.dagster / "schedules" / "schedules.db").unlink()
    done = polar(home.root, "doctor", "--repair", check=False)
    assert (
        done.returncode == 3 and "newer version of Dagster" in done.stdout and "schedules.db is missing" in done.stdout
    )
    assert (home.dagster / "schedules" / "schedules.db").exists()
