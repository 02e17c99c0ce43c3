"""The IO manager: hands stored outputs to the steps that read them, after their hashes were compared.

The step that makes an output stores it (`tracked_asset`), because its hash has to be known before Dagster is told of it.
What does not belong here: weights, which never travel between assets.
"""

from typing import Any

import dagster as dg

from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.storage.fingerprint import fingerprint

RELEASE = "release_files"  # the observable source: one version per language, of its files in train/, dev/ and test/


class OutputsIOManager(dg.IOManager):
    """The outputs of one profile, as Dagster's steps read them."""

    def __init__(self, project: Project) -> None:
        self._project = project

    @property
    def lineage(self) -> Lineage:
        """Made anew, because it remembers its answers and steps change them."""
        return Lineage(self._project)

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Nothing is left to do: the step has stored its value."""

    def load_input(self, context: dg.InputContext) -> Any:
        """The upstream value; {language: value} of those that are there, for a reader without languages or a run of several."""
        asset = context.asset_key.path[-1]
        if not context.has_asset_partitions:
            return self.lineage.read(asset, None)
        keys = list(context.asset_partition_keys)
        reader = context.step_context
        if (reader.has_partition_key or reader.has_partition_key_range) and len(keys) == 1:
            return self.lineage.read(asset, keys[0])
        lineage = self.lineage
        there = set(lineage.outputs.languages(asset))
        return {key: lineage.read(asset, key) for key in sorted(keys) if key in there}

    def made_from(self, asset: str, language: str | None) -> dict[str, Any]:
        """Settings, sources and inputs as they are now, for the provenance of what is about to be made."""
        lineage = self.lineage
        node = lineage.nodes[asset]
        return {
            "settings": node.settings(language),
            "sources": node.sources(language),
            "inputs": lineage.inputs(asset, language),
        }

    def source_of(self, asset: str) -> dg.AssetKey | None:
        """The observable source that an asset is made from, if it is made from one."""
        return dg.AssetKey([self._project.profile.name, RELEASE]) if asset == "raw_posts" else None

    def observe(self, instance: dg.DagsterInstance, language: str, files: dict[str, str]) -> tuple[str, int]:
        """Tell Dagster the version of a language's files, if it has not heard; returns the version and its event's id."""
        from dagster._core.definitions.data_version import DATA_VERSION_TAG, extract_data_version_from_entry

        key, version = dg.AssetKey([self._project.profile.name, RELEASE]), fingerprint(files)
        for _ in range(2):
            record = instance.get_latest_data_version_record(key, True, language)
            known = extract_data_version_from_entry(record.event_log_entry) if record else None
            if record and known and known.value == version:
                return version, record.storage_id
            tags = {DATA_VERSION_TAG: version}
            instance.report_runless_asset_event(dg.AssetObservation(key, partition=language, tags=tags))
        raise InputError(f"Dagster's event log did not take the observation of {language}: run `polar doctor`.")
