"""The report and the submission follow when languages finish: after one or many, not before, and not twice."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from polar_pipeline.defs.assets.evidence import load_results
from polar_pipeline.defs.instance import open_instance, prepare_home
from polar_pipeline.defs.orphans import close_orphans
from polar_pipeline.errors import InputError
from polar_pipeline.tracking.base import Tracker
from polar_pipeline_tests.defs.mini import mini_project, mini_release
from polar_pipeline_tests.defs.test_orphans import dead_tags
from polar_pipeline_tests.defs.test_staleness import LINEAR, QUIET, Home

BOTH = {"benchmark_report", "submission"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A project of three languages of which nothing is computed."""
    release = mini_release(tmp_path / "release", ["deu", "eng", "swa"])
    monkeypatch.setenv("POLAR_DATA_DIR", str(release))
    project = mini_project(tmp_path, ["deu", "eng", "swa"], LINEAR[0])
    prepare_home(project.home)
    with open_instance(project.home.dagster) as instance:
        yield Home(tmp_path, instance, project)


class Daemon:
    """Evaluates the conditions of the definitions, tick by tick."""

    def __init__(self, home: Home) -> None:
        self._home, self._defs = home, home.defs()
        self._cursor: Any = None

    def tick(self) -> set[str]:
        """The assets that this tick asks for."""
        result = dg.evaluate_automation_conditions(self._defs, self._home.instance, cursor=self._cursor)
        self._cursor = result.cursor
        return {one.key.path[-1] for one in result.results if one.true_subset.size}


def test_they_follow_each_batch_of_languages_once(home: Home) -> None:
    daemon = Daemon(home)
    assert daemon.tick() == set()
    # one language of three is enough: the others are named in the report as absent
    home.run("language_pipeline", "deu")
    assert daemon.tick() == BOTH and daemon.tick() == set()
    home.run("report")
    assert daemon.tick() == set()
    for code in ("eng", "swa"):
        home.run("language_pipeline", code)
    assert daemon.tick() == BOTH and daemon.tick() == set()


def test_posts_without_predictions_are_no_news(home: Home) -> None:
    daemon = Daemon(home)
    assert daemon.tick() == set()
    job = home.defs().resolve_job_def("language_pipeline")
    posts = [dg.AssetKey(["mini", name]) for name in ("raw_posts", "corpus_audit")]
    assert job.execute_in_process(QUIET, home.instance, partition_key="deu", asset_selection=posts).success
    assert daemon.tick() == set()
    home.run("language_pipeline", "deu")
    assert daemon.tick() == BOTH


def test_they_wait_while_a_language_is_computed_and_not_for_a_process_that_is_gone(home: Home) -> None:
    daemon = Daemon(home)
    assert daemon.tick() == set()
    home.run("language_pipeline", "deu")
    job = home.defs().resolve_job_def("language_pipeline")
    tags = {"dagster/partition": "swa", **dead_tags()}
    home.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=tags)
    assert daemon.tick() == set()
    assert close_orphans(home.instance, home.project.home, Tracker())
    assert daemon.tick() == BOTH


def test_a_language_that_a_check_refused_is_left_out_and_asked_for_no_second_time(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse_eng(posts: pd.DataFrame, _: Any) -> None:
        if posts["id"].str.startswith("eng").any():
            raise InputError("its ids are wrong")

    monkeypatch.setattr("polar_pipeline.defs.assets.corpus.check_posts", refuse_eng)
    daemon = Daemon(home)
    assert daemon.tick() == set()
    home.run("language_pipeline", "deu")
    job = home.defs().resolve_job_def("language_pipeline")
    result = job.execute_in_process(QUIET, home.instance, partition_key="eng", raise_on_error=False)
    assert [check.check_name for check in result.get_asset_check_evaluations() if not check.passed] == [
        "schema_and_ids"
    ]
    assert {event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key} == {
        "raw_posts"
    }
    assert daemon.tick() == BOTH
    home.run("report")
    results, absent = load_results(home.project)
    assert list(results) == ["deu"] and "its ids are wrong" in absent["eng"] and "not made yet" in absent["swa"]
    assert [daemon.tick() for _ in range(3)] == [set(), set(), set()]
