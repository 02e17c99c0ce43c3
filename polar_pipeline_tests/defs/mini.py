"""A release of a few made-up posts per language, and projects over it whose adapters train in less than a second."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest
from mlflow import MlflowClient
from mlflow.entities import Run

from polar_pipeline.defs.build import build_defs
from polar_pipeline.defs.instance import open_instance, prepare_home
from polar_pipeline.defs.io_managers import OutputsIOManager
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.tracked_asset import REUSE_TAG
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.home import Home
from polar_pipeline.storage.outputs import output_name
from polar_pipeline.task.card import load_card

TINY = {"name": "tiny", "kind": "lora", "model": "tiny:gemma3", "device": "cpu", "rank": 2, "alpha": 4, "epochs": 1}
TINY |= {"learning_rate": 5e-3, "max_length": 16, "token_budget": 256, "recompute": "never"}
_SIZES = {"train": 16, "dev": 4, "test": 4}


def mini_release(folder: Path, codes: list[str]) -> Path:
    """train/, dev/ and test/ of each language: a word decides the label."""
    card = load_card("polar")
    for split, size in _SIZES.items():
        (folder / split).mkdir(parents=True)
        for code in codes:
            rows = [
                {"id": f"{code}_{split}{n:04d}", "text": f"{'them' if n % 2 else 'tea'} {code} {split} {n}", "l": n % 2}
                for n in range(size)
            ]
            table = pd.DataFrame(rows).rename(columns={"l": card.label.column})
            for column in card.auxiliary.columns:
                table[column] = 0
            table.to_csv(folder / split / f"{code}.csv", index=False)
    return folder


def mini_project(root: Path, codes: list[str], *backbones: dict[str, Any], **changes: Any) -> Project:
    """Over the home `root/home`; POLAR_DATA_DIR says where the posts are."""
    given: dict[str, Any] = {"name": "mini", "description": "", "languages": codes, "folds": {"count": 2}}
    given |= {"backbones": backbones or (TINY,), "curation": {"gate": False}}
    # four posts of test are too few to judge a model by
    given |= {"decision": {"resamples": 5, "transductive": False}, "report": {"resamples": 100}}
    return Project(Profile.model_validate(given | changes), load_card("polar"), Home(root / "home"))


class Jobs:
    """Jobs of one process over a home, as a worker of `polar run` executes them."""

    def __init__(self, project: Project, instance: dg.DagsterInstance, keep_bases: bool = True) -> None:
        self.instance, self.project = instance, project
        self._defs = build_defs(project, keep_bases=keep_bases)

    def run(
        self,
        name: str,
        code: str | None = None,
        ends: tuple[str, str] | None = None,
        only: list[str] | None = None,
        reuse: bool = False,
    ) -> dg.ExecuteInProcessResult:
        """A job, or some of its assets only, for one language, for the range between `ends`, or for none.

        `reuse`: what would come out the same is not computed again.
        """
        keys = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
        return self._defs.resolve_job_def(name).execute_in_process(
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            instance=self.instance,
            partition_key=code,
            asset_selection=[self.key(asset) for asset in only] if only else None,
            tags=(dict(zip(keys, ends, strict=True)) if ends else {}) | ({REUSE_TAG: "true"} if reuse else {}),
            raise_on_error=False,
        )

    def key(self, asset: str) -> dg.AssetKey:
        """The key of an asset, which begins with the profile."""
        return dg.AssetKey([self.project.profile.name, asset])

    def made(self, result: dg.ExecuteInProcessResult, asset: str) -> list[dg.AssetMaterialization]:
        """The materializations of an asset in a run."""
        return list(result.asset_materializations_for_node(f"{self.project.profile.name}__{asset}"))

    def read(self, asset: str, language: str | None) -> Any:
        """The stored value of an asset."""
        return Lineage(self.project).read(asset, language)

    def not_fresh(self) -> dict[str, str]:
        """Outputs that Dagster's UI would call stale or missing, with its status."""
        graph = self._defs.resolve_asset_graph()
        resolver = CachingStaleStatusResolver(self.instance, graph, LoadingContextForTest(self.instance))
        found = {}
        for node in Lineage(self.project).nodes.values():
            for code in self.project.codes if node.partitioned else [None]:
                status = resolver.get_status(self.key(node.name), code).name
                if status != "FRESH":
                    found[output_name(node.name, code)] = status
        return found

    def observe(self, code: str) -> None:
        """Tell Dagster of the files of a language."""
        OutputsIOManager(self.project).observe(self.instance, code, self.project.release_sha256(code))

    def prepare(self) -> None:
        """The posts of all languages."""
        for code in self.project.codes:
            assert self.run("prepare_posts", code).success

    @property
    def all(self) -> tuple[str, str]:
        """The range of all languages."""
        return self.project.codes[0], self.project.codes[-1]

    def tracked(self, asset: str) -> dict[str, list[Run]]:
        """MLflow runs of an asset by language, oldest first."""
        client = MlflowClient(f"sqlite:///{self.project.home.mlflow_database}")
        experiment = client.get_experiment_by_name("polar")
        assert experiment is not None
        found: dict[str, list[Run]] = {}
        text = f"tags.`dagster.asset` = '{asset}'"
        for run in client.search_runs([experiment.experiment_id], text, order_by=["attributes.start_time"]):
            found.setdefault(run.data.tags["dagster.partition"], []).append(run)
        return found

    def curve(self, run: Run, metric: str) -> list[float]:
        """All values of a metric, in order."""
        client = MlflowClient(f"sqlite:///{self.project.home.mlflow_database}")
        return [point.value for point in client.get_metric_history(run.info.run_id, metric)]


@contextmanager
def jobs_of(project: Project, database: Path, keep_bases: bool = True) -> Iterator[Jobs]:
    """Jobs over the project's own instance. `database` is MLflow's, empty, which takes seconds to make."""
    prepare_home(project.home)
    if database != project.home.mlflow_database:
        shutil.copy(database, project.home.mlflow_database)
    with open_instance(project.home.dagster) as instance:
        yield Jobs(project, instance, keep_bases)
