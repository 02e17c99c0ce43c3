"""IO managers: tables as Parquet, records as JSON, one file per asset and partition, written whole or not at all.

What does not belong here: weights, which never travel between assets.
"""

from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
from upath import UPath

from polar_pipeline.storage.files import write_atomic, write_atomic_with
from polar_pipeline.storage.record import Record, read_record


class LanguageIOManager(dg.UPathIOManager):
    """One file per language. A downstream asset without partitions always gets a dict of those languages that are there."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write one language's value, or, of a run over several languages, those of {language: value}."""
        if not context.has_asset_partitions or len(context.asset_partition_keys) == 1:
            super().handle_output(context, obj)
            return
        for key, path in self._get_paths_for_partitions(context).items():
            self.make_directory(path.parent)
            self.dump_to_path(context, obj[key], path)

    def load_input(self, context: dg.InputContext) -> Any:
        """The upstream value, or {language: value} when the reader has no partitions itself."""
        if context.has_asset_partitions and not _reader_is_partitioned(context):
            paths = self._get_paths_for_partitions(context)
            return {key: self.load_from_path(context, path) for key, path in sorted(paths.items()) if path.exists()}
        return super().load_input(context)


class ParquetIOManager(LanguageIOManager):
    """Tables."""

    extension = ".parquet"

    def dump_to_path(self, context: dg.OutputContext, obj: pd.DataFrame, path: UPath) -> None:  # noqa: ARG002
        """Write a table, atomically."""
        write_atomic_with(Path(str(path)), lambda file: obj.to_parquet(file, index=False))

    def load_from_path(self, context: dg.InputContext, path: UPath) -> pd.DataFrame:  # noqa: ARG002
        """Read a table."""
        return pd.read_parquet(Path(str(path)))


class RecordIOManager(LanguageIOManager):
    """Small records as JSON, read back as the record type that wrote them."""

    extension = ".json"

    def __init__(self, base_path: UPath, record: type[Record]) -> None:
        super().__init__(base_path)
        self._record = record

    def dump_to_path(self, context: dg.OutputContext, obj: Record, path: UPath) -> None:  # noqa: ARG002
        """Write a record, atomically."""
        write_atomic(Path(str(path)), (obj.model_dump_json(indent=2) + "\n").encode("utf-8"))

    def load_from_path(self, context: dg.InputContext, path: UPath) -> Record:  # noqa: ARG002
        """Read and validate a record."""
        return read_record(Path(str(path)), self._record)


class TextIOManager(LanguageIOManager):
    """The path of a file that an asset wrote, as a line of text."""

    extension = ".txt"

    def dump_to_path(self, context: dg.OutputContext, obj: str, path: UPath) -> None:  # noqa: ARG002
        """Write a line, atomically."""
        write_atomic(Path(str(path)), f"{obj}\n".encode())

    def load_from_path(self, context: dg.InputContext, path: UPath) -> str:  # noqa: ARG002
        """Read it back."""
        return Path(str(path)).read_text(encoding="utf-8").rstrip("\n")


def _reader_is_partitioned(context: dg.InputContext) -> bool:
    return context.step_context.has_partition_key or context.step_context.has_partition_key_range
