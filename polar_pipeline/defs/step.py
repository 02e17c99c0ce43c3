"""What a body sees of Dagster, and the identity of its tracked run. What does not belong here: running bodies."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from polar_pipeline.tracking.base import Step


class StepContext:
    """A body's language, a log, and a place for metadata."""

    def __init__(self, context: dg.AssetExecutionContext, partition: str | None, last: bool = True) -> None:
        self._partition = partition
        self.last = last  # whether no other language follows in this step
        self.log = context.log
        self.metadata: dict[str, Any] = {}

    @property
    def partition_key(self) -> str:
        """The language that is computed."""
        if self._partition is None:
            raise ValueError("this asset has no partitions")
        return self._partition

    def add_output_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Metadata of this language's materialization."""
        self.metadata |= metadata


def links(found: Mapping[str, str]) -> dict[str, Any]:
    """A tracked run's links, as metadata."""
    return {key: dg.MetadataValue.url(link) if key.endswith("url") else link for key, link in found.items()}


def step_of(context: dg.AssetExecutionContext, partition: str | None) -> Step:
    """The tracked run's identity."""
    version = context.assets_def.code_versions_by_key[context.asset_key]
    tags = {"language": partition or "", "fingerprint": version or ""}
    return Step(
        asset=context.asset_key.to_user_string(),
        partition=partition,
        dagster_run=context.run.run_id,
        root_run=context.run.root_run_id or context.run.run_id,
        attempt=context.retry_number + 1,
        backfill=context.run.tags.get("dagster/backfill"),
        tags={name: value for name, value in tags.items() if value},
    )
