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

    def store(self, asset: str, language: str, value: Any) -> None:
        """Write one language's value where `handle_output` would, in a run over several, which has no output of its own."""
        self.write(value, Path(str(self._base_path / asset / f"{language}{self.extension}")))

    def dump_to_path(self, context: dg.OutputContext, obj: Any, path: UPath) -> None:  # noqa: ARG002
        """Write a value, atomically."""
        self.write(obj, Path(str(path)))

    def write(self, value: Any, path: Path) -> None:
        """Put a value at `path`, whole or not at all."""
        raise NotImplementedError

    def load_input(self, context: dg.InputContext) -> Any:
        """The upstream value, or {language: value} when the reader has no partitions itself, or a run of several."""
        if context.has_asset_partitions and (
            not _reader_is_partitioned(context) or len(context.asset_partition_keys) > 1
        ):
            paths = self._get_paths_for_partitions(context)
            return {key: self.load_from_path(context, path) for key, path in sorted(paths.items()) if path.exists()}
        return super().load_input(context)


class ParquetIOManager(LanguageIOManager):
    """Tables."""

    extension = ".parquet"

    def write(self, value: pd.DataFrame, path: Path) -> None:
        """Put a table at `path`."""
        write_atomic_with(path, lambda file: value.to_parquet(file, index=False))

    def load_from_path(self, context: dg.InputContext, path: UPath) -> pd.DataFrame:  # noqa: ARG002
        """Read a table."""
        return pd.read_parquet(Path(str(path)))


class RecordIOManager(LanguageIOManager):
    """Small records as JSON, read back as the record type that wrote them."""

    extension = ".json"

    def __init__(self, base_path: UPath, record: type[Record]) -> None:
        super().__init__(base_path)
        self._record = record

    def write(self, value: Record, path: Path) -> None:
        """Put a record at `path`."""
        write_atomic(path, (value.model_dump_json(indent=2) + "\n").encode("utf-8"))

    def load_from_path(self, context: dg.InputContext, path: UPath) -> Record:  # noqa: ARG002
        """Read and validate a record."""
        return read_record(Path(str(path)), self._record)


class TextIOManager(LanguageIOManager):
    """The path of a file that an asset wrote, as a line of text."""

    extension = ".txt"

    def write(self, value: str, path: Path) -> None:
        """Put a line at `path`."""
        write_atomic(path, f"{value}\n".encode())

    def load_from_path(self, context: dg.InputContext, path: UPath) -> str:  # noqa: ARG002
        """Read it back."""
        return Path(str(path)).read_text(encoding="utf-8").rstrip("\n")


def _reader_is_partitioned(context: dg.InputContext) -> bool:
    return context.step_context.has_partition_key or context.step_context.has_partition_key_range
