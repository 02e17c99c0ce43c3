"""Training through Dagster, with real adapters of a tiny model: many languages in a run, pooled, and one on a GPU."""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from polar_pipeline.backbones.lora.loading import ModelCache
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.task.languages import LANGUAGES
from polar_pipeline.tracking.mlflow_tracker import MlflowTracker
from polar_pipeline.tracking.store import sqlite_url
from polar_pipeline_tests.defs import mini
from polar_pipeline_tests.defs.mini import TINY, Jobs, jobs_of, mini_project, mini_release

CODES = ["eng", "deu", "hin"]
PARTS = ("fold-0-seed-0", "fold-1-seed-0", "final-seed-0")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often which model was loaded."""
    found: Counter[str] = Counter()
    load = ModelCache._load

    def counted(self: ModelCache, settings: Any, *how: Any) -> Any:
        found[settings.model] += 1
        return load(self, settings, *how)

    monkeypatch.setattr(ModelCache, "_load", counted)
    return found


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POLAR_DATA_DIR", str(mini_release(tmp_path / "release", CODES)))
    return tmp_path


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty tracking store."""
    folder = tmp_path_factory.mktemp("mlflow")
    MlflowTracker(sqlite_url(folder / "mlflow.db"), folder, "polar").connect()
    return folder / "mlflow.db"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Path:
    """The home and the release of a project with one tiny backbone, its posts prepared."""
    root = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLAR_DATA_DIR", str(mini_release(root / "release", CODES)))
        with jobs_of(mini_project(root, CODES), database) as found:
            found.prepare()
    return root


@pytest.fixture
def jobs(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobs]:
    """That project, in a home of the test's own."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("POLAR_DATA_DIR", str(tmp_path / "release"))
    with jobs_of(mini_project(tmp_path, CODES), tmp_path / "home" / "mlflow.db") as found:
        yield found


def partitions(jobs: Jobs, result: dg.ExecuteInProcessResult, asset: str) -> list[str | None]:
    return [event.partition for event in jobs.made(result, asset)]


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return str(event.step_failure_data.user_failure_data.description)


def test_many_languages_in_one_run_load_the_base_once_and_are_found_by_their_own_runs(
    jobs: Jobs, loads: Counter[str]
) -> None:
    result = jobs.run("train_adapters", ends=jobs.all)
    assert result.success and loads == {"tiny:gemma3": 1}
    assert partitions(jobs, result, "tiny_adapter") == CODES
    trained = jobs.tracked("tiny_adapter")
    assert {code: [run.info.status for run in runs] for code, runs in trained.items()} == {
        code: ["FINISHED"] for code in CODES
    }
    taken = {event.partition: event.metadata for event in jobs.made(result, "tiny_adapter")}
    for code in CODES:
        done = jobs.run("language_pipeline", code)
        assert done.success and jobs.read("thresholds", code).language == code
        (event,) = jobs.made(done, "tiny_adapter")
        for name in ("train_seconds", "train_loss", "train_tokens_per_second", "sha256", "models"):
            assert event.metadata[name] == taken[code][name], name
        first, second = jobs.tracked("tiny_adapter")[code]
        for name in ("train_seconds", "train_loss", *(f"end/{part}/loss" for part in PARTS)):
            assert second.data.metrics[name] == first.data.metrics[name] > 0, name
        assert second.data.metrics["end/final-seed-0/loss"] == jobs.curve(first, "final-seed-0/loss")[-1]
        (scored,) = jobs.made(done, "tiny_dev_probabilities")
        assert scored.metadata["posts_per_second"] == taken[code]["posts_per_second"]
    assert loads == {"tiny:gemma3": 1}  # what was trained is found, and so is what was scored then
    # the UI says of each output what `polar run` says of it
    assert set(jobs.not_fresh()) == {"benchmark_report", "submission"}
    assert [Lineage(jobs.project).stale(code) for code in CODES] == [{}, {}, {}]
    path = jobs.project.data / "dev" / "deu.csv"
    path.write_bytes(path.read_bytes().replace(b"tea deu dev 0", b"tea deu dev 00"))
    jobs.observe("deu")
    stale = {f"{name}[deu]" for name in Lineage(jobs.project).stale("deu")}
    found = set(jobs.not_fresh())  # Dagster waits with what follows until it knows that the posts are others
    assert len(stale) == 8 and "raw_posts[deu]" in found <= {"benchmark_report", "submission"} | stale
    assert jobs.run("language_pipeline", "deu", reuse=True).success
    assert set(jobs.not_fresh()) == {"benchmark_report", "submission"}
    assert Lineage(jobs.project).stale("deu") == {}


def test_a_language_that_fails_is_named_and_the_others_are_materialized(
    jobs: Jobs, loads: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from polar_pipeline.backbones.lora import backbone

    train = backbone.train_model

    def full(slot: Any, fit: Any, *given: Any) -> None:
        if fit.title.startswith("deu"):
            raise MemoryError("no memory left")
        train(slot, fit, *given)

    with monkeypatch.context() as patch:
        patch.setattr(backbone, "train_model", full)
        patch.setattr("time.sleep", lambda seconds: None)  # it is tried once more, in vain
        result = jobs.run("train_adapters", ends=jobs.all)
    assert not result.success and "1 of 3 languages failed (deu: MemoryError: no memory left)" in failure(result)
    assert set(partitions(jobs, result, "tiny_adapter")) == {"eng", "hin"}
    assert jobs.instance.get_materialized_partitions(jobs.key("tiny_adapter")) == {"eng", "hin"}
    assert Lineage(jobs.project).outputs.languages("tiny_adapter") == ["eng", "hin"]
    assert jobs.run("language_pipeline", "eng").success
    assert loads == {"tiny:gemma3": 1}


def test_a_language_without_posts_does_not_keep_the_others_from_it(jobs: Jobs) -> None:
    Lineage(jobs.project).outputs.path("deduped_posts", "hin", pd.DataFrame).unlink()
    result = jobs.run("train_adapters", ends=jobs.all)
    assert "1 of 3 languages failed (hin: " in failure(result)
    assert "hin.parquet is not there: materialize deduped_posts[hin] first." in failure(result)
    assert partitions(jobs, result, "tiny_adapter") == ["eng", "deu"]


def test_two_bases_that_are_released_are_loaded_once_each_and_not_for_what_is_finished(
    root: Path, database: Path, loads: Counter[str]
) -> None:
    other = TINY | {"name": "other", "model": "tiny:qwen3"}
    with jobs_of(mini_project(root, CODES, TINY, other), database, keep_bases=False) as jobs:
        jobs.prepare()
        assert jobs.run("train_adapters", ends=jobs.all).success
        assert loads == {"tiny:gemma3": 1, "tiny:qwen3": 1}
        for code in CODES:
            assert jobs.run("language_pipeline", code).success
        assert loads == {"tiny:gemma3": 1, "tiny:qwen3": 1}


@pytest.mark.parametrize("scope", ["language", "pooled"])
def test_without_folds_the_posts_that_were_fitted_on_are_counted(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    monkeypatch.setitem(mini._SIZES, "dev", 40)  # decisions are cross-fitted on dev, and need both classes in each part
    monkeypatch.setenv("POLAR_DATA_DIR", str(mini_release(tmp_path / "release", CODES[:1])))
    with jobs_of(mini_project(tmp_path, CODES[:1], TINY | {"scope": scope}, folds={"count": 0}), database) as jobs:
        jobs.prepare()
        pooled = scope == "pooled"
        result = jobs.run("train_pooled") if pooled else jobs.run("train_adapters", "eng")
        (event,) = jobs.made(result, "tiny_pooled_adapter" if pooled else "tiny_adapter")
        assert event.metadata["train_posts"].value == 16
        ((run,),) = jobs.tracked("tiny_pooled_adapter" if pooled else "tiny_adapter").values()
        assert run.data.metrics["train_posts"] == 16


def test_an_adapter_that_was_damaged_since_is_trained_again(jobs: Jobs, loads: Counter[str]) -> None:
    first = jobs.run("train_adapters", ends=jobs.all)
    (weights,) = (jobs.project.home.adapters / "tiny" / "deu").rglob("adapter.safetensors")
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    again = jobs.run("train_adapters", ends=jobs.all)
    assert again.success and weights.read_bytes() == before
    found = [[event.metadata["sha256"] for event in jobs.made(run, "tiny_adapter")] for run in (first, again)]
    assert found[0] == found[1] and len(found[0]) == len(CODES)


def test_the_pooled_adapter_has_a_job_of_its_own_and_every_language_its_share(
    root: Path, database: Path, loads: Counter[str]
) -> None:
    with jobs_of(mini_project(root, CODES, TINY | {"scope": "pooled"}), database) as jobs:
        early = jobs.run("train_pooled")
        assert not early.success and "deduped_posts of eng, deu, hin are not there" in failure(early)
        jobs.prepare()
        result = jobs.run("train_pooled")
        assert result.success
        (event,) = jobs.made(result, "tiny_pooled_adapter")
        assert event.partition is None and event.metadata["train_seconds"].value > 0
        assert event.metadata["train_posts"].value == 3 * 20
        for code in CODES:
            done = jobs.run("language_pipeline", code)
            assert done.success and jobs.read("thresholds", code).language == code
        assert loads == {"tiny:gemma3": 1}
        again = jobs.run("train_pooled")
        (found,) = jobs.made(again, "tiny_pooled_adapter")
        assert found.metadata["train_seconds"] == event.metadata["train_seconds"]
        assert len(jobs.tracked("tiny_pooled_adapter")[""]) == 3


def test_families_have_an_adapter_each_and_other_posts_of_a_language_reach_its_family(
    root: Path, database: Path
) -> None:
    with jobs_of(mini_project(root, CODES, TINY | {"scope": "family"}), database) as jobs:
        jobs.prepare()
        (event,) = jobs.made(jobs.run("train_pooled"), "tiny_pooled_adapter")
        assert event.metadata["train_posts"].value == 3 * 20 and event.metadata["train_seconds"].value > 0
        families = {path.name for path in (jobs.project.home.adapters / "tiny").iterdir()}
        assert families == {"all", "indo-european-germanic", "indo-european-indo-aryan"}
        for code in CODES:
            assert jobs.run("language_pipeline", code, only=["tiny_adapter"]).success
        before = {code: jobs.read("tiny_adapter", code) for code in CODES}
        file = root / "release" / "train" / "deu.csv"
        file.write_text(file.read_text().replace("tea deu", "coffee deu"))
        assert jobs.run("prepare_posts", "deu").success
        assert Lineage(jobs.project).why_not_current("tiny_pooled_adapter", None)
        assert not jobs.run("language_pipeline", "deu", only=["tiny_adapter"]).success
        assert jobs.run("train_pooled").success
        for code in CODES:
            assert jobs.run("language_pipeline", code, only=["tiny_adapter"]).success
        assert [code for code in CODES if jobs.read("tiny_adapter", code) == before[code]] == ["hin"]
        assert all(Lineage(jobs.project).why_not_current("tiny_adapter", code) == [] for code in CODES)
        for weights in (jobs.project.home.adapters / "tiny" / "indo-european-germanic").rglob("*.safetensors"):
            weights.write_bytes(weights.read_bytes()[:-1])
        (reason,) = Lineage(jobs.project).why_not_current("tiny_pooled_adapter", None)
        assert "indo-european-germanic" in reason


def test_a_step_that_may_use_a_gpu_waits_for_its_slot(root: Path, database: Path) -> None:
    with jobs_of(mini_project(root, CODES[:1], TINY | {"device": "auto"}), database) as jobs:
        jobs.prepare()
        slots = jobs.instance.event_log_storage
        slots.set_concurrency_slots("gpu", 1)
        assert slots.claim_concurrency_slot("gpu", "another-run", "training").is_claimed
        results: list[dg.ExecuteInProcessResult] = []
        thread = threading.Thread(target=lambda: results.append(jobs.run("language_pipeline", "eng")))
        thread.start()
        time.sleep(6)
        assert thread.is_alive()
        assert not jobs.instance.get_materialized_partitions(jobs.key("tiny_adapter"))
        slots.free_concurrency_slots_for_run("another-run")
        thread.join(300)
        assert results and results[0].success
        assert jobs.instance.get_materialized_partitions(jobs.key("tiny_adapter")) == {"eng"}


@pytest.mark.slow
def test_a_backfill_of_22_languages(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch, loads: Counter[str]
) -> None:
    """The base is loaded once, and there are 22 adapters, 22 tracked runs, and a decision each."""
    codes = list(LANGUAGES)
    monkeypatch.setenv("POLAR_DATA_DIR", str(mini_release(tmp_path / "release", codes)))
    with jobs_of(mini_project(tmp_path, codes), database) as jobs:
        jobs.prepare()
        result = jobs.run("train_adapters", ends=jobs.all)
        assert result.success and loads == {"tiny:gemma3": 1}
        assert sorted(map(str, partitions(jobs, result, "tiny_adapter"))) == sorted(codes)
        trained = jobs.tracked("tiny_adapter")
        assert {code: [run.info.status for run in runs] for code, runs in trained.items()} == {
            code: ["FINISHED"] for code in codes
        }
        adapters = jobs.project.home.adapters / "tiny"
        assert sorted(folder.name for folder in adapters.iterdir()) == sorted(codes)
        rest = ["corpus_audit", "tiny_dev_probabilities", "thresholds"]
        for code in codes:
            done = jobs.run("language_pipeline", code, only=rest)
            assert done.success and jobs.read("thresholds", code).language == code
        assert loads == {"tiny:gemma3": 1}
    assert Lineage(jobs.project).outputs.languages("thresholds") == sorted(codes)
