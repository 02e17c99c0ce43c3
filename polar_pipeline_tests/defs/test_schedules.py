"""The weekly schedule asks for each language once per date; where backbones are pooled, stage by stage."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest

from polar_pipeline.defs.build import build_defs
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.schedules import WEEK_TAG
from polar_pipeline_tests.defs.mini import TINY, mini_project

CODES, DATE = ["eng", "deu"], "2026-03-02"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as opened:
        yield opened


@pytest.fixture(params=["pooled", "family"])
def pooled(tmp_path: Any, request: pytest.FixtureRequest) -> Project:
    """A project with a backbone that is trained on several languages together."""
    return mini_project(tmp_path, CODES, TINY | {"scope": request.param})


def retrain(project: Project, instance: dg.DagsterInstance) -> list[Any]:
    """What the schedule asks for on a Monday."""
    repository = build_defs(project).get_repository_def()
    time = datetime(2026, 3, 2, 3, tzinfo=UTC)
    context = dg.build_schedule_context(instance, repository_def=repository, scheduled_execution_time=time)
    return list(repository.get_schedule_def("weekly_retraining").evaluate_tick(context).run_requests or [])


def finish(project: Project, instance: dg.DagsterInstance, job: str, **tags: str) -> dg.DagsterRun:
    """A run of a job that has ended well."""
    definition = build_defs(project).resolve_job_def(job)
    tags = {"polar/profile": project.profile.name, **tags}
    run = instance.create_run_for_job(definition, status=dg.DagsterRunStatus.SUCCESS, tags=tags)
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


def follow_up(project: Project, instance: dg.DagsterInstance, run: dg.DagsterRun) -> list[tuple[str, str | None]]:
    """What the sensor asks for after a run: jobs and languages."""
    repository = build_defs(project).get_repository_def()
    event = dg.DagsterEvent("PIPELINE_SUCCESS", job_name=run.job_name)
    context = dg.build_run_status_sensor_context("weekly_follow_up", event, instance, run)
    requests = list(repository.get_sensor_def("weekly_follow_up")(context) or [])
    keys = [request.run_key for request in requests]
    assert len(set(keys)) == len(keys) and all(request.tags[WEEK_TAG] == DATE for request in requests)
    return [(request.job_name, request.partition_key) for request in requests]


def test_one_dated_request_per_language(project: Project, instance: dg.DagsterInstance) -> None:
    requests = retrain(project, instance)
    assert [(request.run_key, request.partition_key) for request in requests] == [
        ("2026-03-02|eng", "eng"), ("2026-03-02|deu", "deu"), ("2026-03-02|hin", "hin"),
    ]  # fmt: skip
    defs = build_defs(project).get_repository_def()
    assert defs.get_schedule_def("weekly_retraining").job_name == "language_pipeline"
    assert not defs.has_sensor_def("weekly_follow_up")


def test_with_pooled_backbones_the_posts_come_first(pooled: Project, instance: dg.DagsterInstance) -> None:
    requests = retrain(pooled, instance)
    assert [(one.run_key, one.tags[WEEK_TAG]) for one in requests] == [(f"{DATE}|{code}", DATE) for code in CODES]
    schedule = build_defs(pooled).get_repository_def().get_schedule_def("weekly_retraining")
    assert schedule.job_name == "prepare_posts"


def test_pooled_adapters_wait_for_the_posts_of_all_and_the_languages_for_them(
    pooled: Project, instance: dg.DagsterInstance
) -> None:
    week = {WEEK_TAG: DATE}
    first = finish(pooled, instance, "prepare_posts", **week, **{"dagster/partition": "eng"})
    assert follow_up(pooled, instance, first) == []
    # neither another week's posts, nor those of another profile, nor posts that failed
    finish(pooled, instance, "prepare_posts", **{WEEK_TAG: "2026-02-23", "dagster/partition": "deu"})
    finish(pooled, instance, "prepare_posts", **week, **{"dagster/partition": "deu", "polar/profile": "another"})
    assert follow_up(pooled, instance, first) == []
    second = finish(pooled, instance, "prepare_posts", **week, **{"dagster/partition": "deu"})
    assert follow_up(pooled, instance, second) == [("train_pooled", None)]
    trained = finish(pooled, instance, "train_pooled", **week)
    assert follow_up(pooled, instance, trained) == [("language_pipeline", code) for code in CODES]


def test_what_a_person_starts_is_followed_by_nothing(pooled: Project, instance: dg.DagsterInstance) -> None:
    for code in CODES:
        run = finish(pooled, instance, "prepare_posts", **{"dagster/partition": code})
        assert follow_up(pooled, instance, run) == []
    assert follow_up(pooled, instance, finish(pooled, instance, "train_pooled")) == []
