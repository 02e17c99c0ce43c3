"""Dagster's "stale" and our own "not current" agree, whatever changed.

Dagster marks an output whose code version or whose inputs' data versions are others than it was made with. What lies
downstream of such an output it marks only once that was made again, and only if it came out different; ours counts it
at once.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._utils.test.data_versions import get_stale_status_resolver

from polar_pipeline.defs.build import build_defs
from polar_pipeline.defs.instance import open_instance, prepare_home
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.nodes import ACROSS
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.sensors import observe_release
from polar_pipeline.settings.profile import Profile
from polar_pipeline.tracking.base import Tracker
from polar_pipeline_tests.defs.mini import mini_project, mini_release

CODES = ["eng", "deu"]
LINEAR = [{"name": "linear", "kind": "linear"}, {"name": "other", "kind": "linear"}]
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class Home:
    """A mini project without MLflow, its jobs run in this process."""

    def __init__(self, root: Path, instance: dg.DagsterInstance, project: Project) -> None:
        self.root, self.instance, self.project = root, instance, project

    def defs(self) -> dg.Definitions:
        return build_defs(self.project, {"tracker": dg.ResourceDefinition.hardcoded_resource(Tracker())})

    def run(self, job: str, code: str | None = None) -> None:
        resolved = self.defs().resolve_job_def(job)
        assert resolved.execute_in_process(QUIET, self.instance, partition_key=code).success

    def run_all(self) -> None:
        for code in self.project.codes:
            self.run("language_pipeline", code)
        self.run("report")

    def change(self, **settings: Any) -> None:
        """Another value for settings of the profile."""
        given = self.project.profile.model_dump(mode="json") | settings
        self.project = replace(self.project, profile=Profile.model_validate(given))

    def observe(self, cursor: str | None = None) -> tuple[list[str], str | None]:
        """A tick of the sensor: the languages that it observed, as the daemon stores them, and its cursor."""
        with dg.build_sensor_context(instance=self.instance, cursor=cursor) as context:
            result = observe_release(self.project)(context)
        assert isinstance(result, dg.SensorResult)
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        return [str(event.partition) for event in result.asset_events], result.cursor

    def outputs(self) -> Iterator[tuple[str, str | None]]:
        """Every asset and language."""
        for name, node in Lineage(self.project).nodes.items():
            yield from ((name, code) for code in (self.project.codes if node.partitioned else [None]))

    def ours(self) -> set[tuple[str, str | None]]:
        """What `polar run` would make again."""
        lineage = Lineage(self.project)
        return {output for output in self.outputs() if lineage.why_not_current(*output)}

    def dagsters(self) -> set[tuple[str, str | None]]:
        """What the UI shows as stale or missing."""
        resolver = get_stale_status_resolver(self.instance, self.defs().resolve_asset_graph().assets_defs)
        return {one for one in self.outputs() if resolver.get_status(self.key(one[0]), one[1]).value != "FRESH"}

    def key(self, asset: str) -> dg.AssetKey:
        return dg.AssetKey([self.project.profile.name, asset])

    def with_downstream(self, found: set[tuple[str, str | None]]) -> set[tuple[str, str | None]]:
        """These outputs and everything that Dagster's graph has downstream of them."""
        graph = self.defs().resolve_asset_graph()

        def downstream(asset: str) -> dg.AssetSelection:
            return dg.AssetSelection.assets(self.key(asset)).downstream()

        below = {asset: {key.path[-1] for key in downstream(asset).resolve(graph)} for asset, _ in found}
        return found | {(name, None if name in ACROSS else code) for asset, code in found for name in below[asset]}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Two backbones and two languages, all current."""
    root = tmp_path_factory.mktemp("mini")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLAR_DATA_DIR", str(mini_release(root / "release", [*CODES, "swa"])))
        project = mini_project(root, CODES, *LINEAR)
        prepare_home(project.home)
        with open_instance(project.home.dagster) as instance:
            home = Home(root, instance, project)
            home.run_all()
            yield home


@pytest.fixture
def home(finished: Home) -> Iterator[Home]:
    """The same, to change settings of."""
    yield Home(finished.root, finished.instance, finished.project)


def test_after_a_run_nothing_is_stale(home: Home) -> None:
    assert home.ours() == home.dagsters() == set()
    assert home.observe()[0] == CODES  # the run has told Dagster the same versions
    assert home.dagsters() == set()


def test_a_setting_of_one_backbone_makes_it_stale_and_what_follows(home: Home) -> None:
    home.change(backbones=[LINEAR[0], LINEAR[1] | {"regularisation": 1.0}])
    own, below = ["other_adapter", "other_dev_probabilities"], ["thresholds", "ensemble_predictions"]
    roots: set[tuple[str, str | None]] = {(name, code) for name in own for code in CODES} | {("benchmark_report", None)}
    assert home.dagsters() == roots
    expected = roots | {(name, code) for name in below for code in CODES} | {("submission", None)}
    assert home.ours() == home.with_downstream(roots) == expected


def test_a_setting_of_the_report_makes_the_report_stale_only(home: Home) -> None:
    home.change(report={"resamples": 101})
    assert home.ours() == home.dagsters() == {("benchmark_report", None)}


def test_one_more_language_is_missing_and_the_others_stay_current(home: Home) -> None:
    home.change(languages=[*CODES, "swa"])
    ours, dagsters = home.ours(), home.dagsters()
    assert {code for _, code in ours} == {"swa", None}
    # a submission of the languages that are there is current until the new one has predictions
    assert home.with_downstream(dagsters) - ours == {("submission", None)} and ours <= home.with_downstream(dagsters)


def test_a_changed_file_makes_its_language_stale_once_the_sensor_has_seen_it(home: Home) -> None:
    everything, cursor = home.observe()
    assert everything == CODES and home.observe(cursor) == ([], cursor)
    file = home.root / "release" / "test" / "deu.csv"
    before = file.read_bytes()
    try:
        file.write_bytes(before + b'deu_test9999,"a new post",0,0,0,0,0,0\n')
        assert home.dagsters() == set()  # nobody has told Dagster
        changed, cursor = home.observe(cursor)
        assert changed == ["deu"] and home.observe(cursor)[0] == []
        assert home.dagsters() == {("raw_posts", "deu")}
        ours = home.ours()
        assert ours == home.with_downstream({("raw_posts", "deu")}) and {code for _, code in ours} == {"deu", None}
    finally:
        file.write_bytes(before)
        home.observe(cursor)
    assert home.ours() == home.dagsters() == set()


def test_a_release_that_is_not_there_is_said_and_nothing_is_observed(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLAR_DATA_DIR", str(home.root / "nowhere"))
    with dg.build_sensor_context(instance=home.instance, cursor="deu 1") as context:
        skipped = observe_release(home.project)(context)
    assert isinstance(skipped, dg.SkipReason) and "nowhere" in str(skipped.skip_message)
