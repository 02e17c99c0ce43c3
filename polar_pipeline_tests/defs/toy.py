"""Assets of a few letters over real stored outputs: what the definitions do with an asset, without posts or models."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg

from polar_pipeline.defs.io_managers import OutputsIOManager
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.nodes import Node
from polar_pipeline.defs.project import Project
from polar_pipeline.storage.outputs import Provenance
from polar_pipeline.tracking.base import TrackedRun, TrackedStep

CODES = ["deu", "eng", "hin"]  # of the demo
LANGUAGES = dg.StaticPartitionsDefinition(CODES)
TOY = "demo"  # the prefix of all keys
RANGE = {"dagster/asset_partition_range_start": "deu", "dagster/asset_partition_range_end": "hin"}
Inputs = Mapping[str, tuple[str, ...]]  # asset -> its upstream assets


class Recorder:
    """A tracker that remembers how each step ended."""

    def __init__(self) -> None:
        self.steps: list[tuple[TrackedStep, str, TrackedRun]] = []

    @contextmanager
    def step(self, step: TrackedStep) -> Iterator[TrackedRun]:
        run, status = TrackedRun(links={"mlflow_url": "http://x/1"}), "FAILED"
        try:
            yield run
            status = "FINISHED"
        finally:
            self.steps.append((step, status, run))

    def end_pipeline(self, root_run: str, failed: bool = False) -> None:
        raise AssertionError(root_run, failed)

    def close_killed(self, dagster_run: str | None = None) -> int:
        raise AssertionError(dagster_run)


class ToyLineage(Lineage):
    """The lineage of assets that store values of the type `kind`; those in `across` have no languages."""

    def __init__(self, project: Project, inputs: Inputs, kind: type[Any] = str, across: tuple[str, ...] = ()) -> None:
        super().__init__(project)
        self.settings: dict[str, Any] = {}
        self.nodes = {
            name: Node(name, kind, upstream, lambda _: dict(self.settings), partitioned=name not in across)
            for name, upstream in inputs.items()
        }


class ToyOutputs(OutputsIOManager):
    """The IO manager over toy assets. `settings` may be changed between runs."""

    def __init__(self, home: Path, inputs: Inputs, kind: type[Any] = str, across: tuple[str, ...] = ()) -> None:
        self.project = Project.load("demo", {"POLAR_HOME": str(home)})
        super().__init__(self.project)
        self._toy, self.settings = (inputs, kind, across), dict[str, Any]()

    @property
    def lineage(self) -> Lineage:
        lineage = ToyLineage(self.project, *self._toy)
        lineage.settings = self.settings
        return lineage

    def source_of(self, asset: str) -> dg.AssetKey | None:
        return None

    def store(self, asset: str, language: str | None, value: Any) -> Provenance:
        """As a step would have stored it."""
        outputs, made = self.lineage.outputs, self.made_from(asset, language, {})
        return outputs.write(asset, language, value, **made)


def lineage_of(name: str, partitioned: bool = True) -> Any:
    """What `tracked_asset` asks of a lineage, for one toy asset."""
    project = SimpleNamespace(profile=SimpleNamespace(name=TOY), codes=CODES)
    nodes = {name: SimpleNamespace(partitioned=partitioned)}
    return SimpleNamespace(project=project, nodes=nodes, code_version=lambda _: "7")


def key(name: str) -> dg.AssetKey:
    """The key of a toy asset."""
    return dg.AssetKey([TOY, name])


def upstream_of(name: str) -> dg.AssetSpec:
    """An asset that is stored already."""
    return dg.AssetSpec(key(name), partitions_def=LANGUAGES).with_io_manager_key("outputs")
