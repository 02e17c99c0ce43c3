"""The IO manager: hands stored outputs to the steps that read them, after their hashes were compared.

The step that makes an output stores it (`tracked_asset`), because its hash has to be known before Dagster hears of
it. What does not belong here: weights, which never travel between assets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.storage.outputs import output_name

RELEASE = "release_files"  # the observable source: one version per language, of its files in train/, dev/ and test/


@dataclass(frozen=True)
class Loaded:
    """What a step reads of one asset: values by language (None for an asset without), and the sha256 of each.

    The hash is that of the bytes that were read, so a file that another process replaces meanwhile is no input.
    """

    asset: str
    values: dict[str | None, Any] = field(default_factory=dict)
    hashes: dict[str | None, str] = field(default_factory=dict)
    missing: dict[str | None, str] = field(default_factory=dict)  # why a value cannot be read

    def value(self, language: str | None) -> Any:
        """The value for a step of `language`; without one, {language: value}, or the one value without languages."""
        if None in self.values:
            return self.values[None]
        return self.values[language] if language else self.values

    def sha256(self, language: str | None) -> dict[str, str]:
        """The hashes of `value`, by output."""
        chosen = self.hashes if not language or None in self.hashes else {language: self.hashes[language]}
        return {output_name(self.asset, key): sha for key, sha in chosen.items()}


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

    def load_input(self, context: dg.InputContext) -> Loaded:
        """What is stored of the upstream asset. Raises InputError for what is damaged, or not there.

        A run of several languages goes on with the others; a reader without languages takes those that are there.
        """
        asset, lineage = context.asset_key.path[-1], self.lineage
        loaded, reader = Loaded(asset), context.step_context
        keys: list[str | None] = [*sorted(context.asset_partition_keys)] if context.has_asset_partitions else [None]
        of_languages = reader.has_partition_key or reader.has_partition_key_range
        there, kind = set(lineage.outputs.languages(asset)), lineage.nodes[asset].kind
        for key in keys:
            if not of_languages and key is not None and key not in there:
                continue
            try:
                loaded.values[key], loaded.hashes[key] = lineage.outputs.read_hashed(asset, key, kind)
            except InputError as error:
                if not of_languages or len(keys) == 1:
                    raise
                loaded.missing[key] = str(error)
        return loaded

    def made_from(self, asset: str, language: str | None, read: Mapping[str, str]) -> dict[str, Any]:
        """Settings and sources as they are now and the outputs that were `read`, for the provenance of a new output.

        What a step reads by itself, as the report does, are the outputs that are current.
        """
        lineage = self.lineage
        node = lineage.nodes[asset]
        return {
            "settings": node.settings(language),
            "sources": node.sources(language),
            "inputs": dict(read) or lineage.inputs(asset, language),
        }

    def source_of(self, asset: str) -> dg.AssetKey | None:
        """The observable source that an asset is made from, if it is made from one."""
        return dg.AssetKey([self._project.profile.name, RELEASE]) if asset == "raw_posts" else None

    def observe(self, instance: dg.DagsterInstance, language: str, files: dict[str, str]) -> tuple[str, int]:
        """Tell Dagster the version of a language's files, if it is new; returns the version and its event's id."""
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
