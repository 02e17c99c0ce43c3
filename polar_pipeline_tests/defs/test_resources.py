"""The tracker as a Dagster resource: where it tracks, and parent runs that end with the Dagster run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from polar_pipeline.defs.build import build_defs
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.resources import MlflowResource, make_tracker, mlflow_resource
from polar_pipeline.defs.tracked_asset import StepContext, tracked_asset
from polar_pipeline.storage.outputs import Check
from polar_pipeline.tracking.base import TrackedRun, Tracker
from polar_pipeline.tracking.store import sqlite_url
from polar_pipeline_tests.defs.toy import ToyOutputs, lineage_of
from polar_pipeline_tests.tracking.stores import parents, steps


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Project.load("demo", {"POLAR_HOME": str(tmp_path / "home")})


def resource(home: Path) -> MlflowResource:
    database = sqlite_url(home / "mlflow.db")
    return MlflowResource(tracking_uri=database, artifacts=str(home / "artifacts"), experiment="polar", profile="cpu")


@pytest.mark.parametrize("uri", [None, "", "http://tracking.example:5000"])
def test_the_variable_says_where_to_track_and_the_home_is_the_default(
    project: Project, monkeypatch: pytest.MonkeyPatch, uri: str | None
) -> None:
    if uri is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = mlflow_resource(project)
    expected = uri or sqlite_url(project.home.mlflow_database)
    with found.process_config_and_initialize_cm() as tracker:
        assert tracker is make_tracker(project) and tracker._uri == expected  # type: ignore[attr-defined]
    # Dagster's UI shows the variable, which may hold a password, by its name
    assert (found.tracking_uri == dg.EnvVar("MLFLOW_TRACKING_URI")) is bool(uri)


def test_definitions_take_another_tracker(project: Project) -> None:
    assert isinstance(build_defs(project).resources["tracker"], MlflowResource)  # type: ignore[index]
    assert isinstance(build_defs(project, {"tracker": Tracker()}).resources["tracker"], Tracker)  # type: ignore[index]


def materialized(body: Any, home: Path, language: str | None = None, **settings: Any) -> dg.ExecuteInProcessResult:
    """A run of an asset with or without languages, tracked in `home`."""
    thing = tracked_asset(lineage_of("thing", language is not None), name="thing", **settings)(body)
    resources = {"tracker": resource(home), "outputs": ToyOutputs(home, {"thing": ()}), "watcher": lambda _: None}
    return dg.materialize([thing], partition_key=language, resources=resources, raise_on_error=False)


def test_parents_end_with_the_dagster_run_and_it_is_told_in_tags(tmp_path: Path) -> None:
    def body(context: StepContext, run: TrackedRun) -> str:
        (parent,) = parents(tmp_path)
        assert parent.info.status == "RUNNING"
        return "made"

    result = materialized(body, tmp_path, "deu")
    (parent,), (child,) = parents(tmp_path), steps(tmp_path)
    assert (parent.info.status, child.info.status) == ("FINISHED", "FINISHED")
    assert parent.data.tags["dagster.root_run_id"] == child.data.tags["dagster.run_id"] == result.run_id
    assert {"profile": "cpu", "language": "deu", "fingerprint": "7"}.items() <= child.data.tags.items()
    (event,) = result.asset_materializations_for_node("demo__thing")
    assert event.metadata["mlflow_url"] == dg.MetadataValue.url(f"/polar/mlflow/runs/{child.info.run_id}")


@pytest.mark.parametrize("where", ["body", "check"])
def test_a_run_that_fails_fails_its_parent_wherever_it_does(tmp_path: Path, where: str) -> None:
    def body(context: StepContext, run: TrackedRun) -> str:
        if where == "body":
            raise LookupError("x")
        return "made"

    def refuses(context: StepContext, value: str) -> Iterator[Check]:
        yield Check(name="good", complaint="it is not")

    result = materialized(body, tmp_path, checks=refuses, check_names={"good": "Whether it is good."})
    assert not result.success
    assert [run.info.status for run in parents(tmp_path)] == ["FAILED"]
    assert [run.info.status for run in steps(tmp_path)] == ["FAILED" if where == "body" else "FINISHED"]


def test_a_step_that_is_retried_and_then_done_fails_nothing(tmp_path: Path) -> None:
    attempts = []

    def body(context: StepContext, run: TrackedRun) -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise LookupError("x")
        return "made"

    assert materialized(body, tmp_path, retry_policy=dg.RetryPolicy(max_retries=1)).success
    assert [run.info.status for run in steps(tmp_path)] == ["FAILED", "FINISHED"]
    assert [run.info.status for run in parents(tmp_path)] == ["FINISHED"]


def test_the_tracker_of_a_process_is_opened_once(tmp_path: Path) -> None:
    assert resource(tmp_path).tracker() is resource(tmp_path).tracker()
