"""Stored outputs: a table or record per asset and language, each with the hashes of itself and of what it was made
from.

The file is written first and its `Provenance` last, so a process that is killed between the two leaves an output that
is not current. Every read compares bytes and hash: a damaged file is an `InputError`, never other values.
"""

import hashlib
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from polar_pipeline.errors import InputError
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.storage.fingerprint import file_sha256, fingerprint
from polar_pipeline.storage.record import Record, parse_record

ALL = "all"  # the file name of an asset that has no languages


class Check(Record):
    """What a check said of an output. A failed one is an error, which makes the output unusable, or only a warning."""

    name: str
    complaint: str = ""  # "" when it passed
    warning: bool = False

    @property
    def refused(self) -> bool:
        """Whether the output must not be used."""
        return bool(self.complaint) and not self.warning


class Provenance(Record):
    """What an output is and what it was made from."""

    asset: str
    language: str | None
    sha256: str  # of the stored bytes: the output's data version
    code_version: str  # fingerprint of `settings`
    settings: dict[str, Any]  # version of the stage, and every setting that the output depends on
    sources: dict[str, str]  # files from outside (a release, imported scores) -> sha256
    inputs: dict[str, str]  # upstream output, such as raw_posts[deu] -> its sha256
    files: dict[str, str]  # further files that belong to it, relative to the home -> sha256
    checks: tuple[Check, ...] = ()  # with one that refused it, the output is never current
    incomplete: str = ""  # why more could be had by running again, such as a cap on dollars; "" when it is whole


def output_name(asset: str, language: str | None) -> str:
    """`raw_posts[deu]`, or `submission` for what has no languages."""
    return f"{asset}[{language}]" if language else asset


def code_version(settings: dict[str, Any]) -> str:
    """Short fingerprint of the settings that an output depends on."""
    return fingerprint(settings)[:12]


class Outputs:
    """The stored outputs of one profile. `tables` is their folder; `Provenance.files` are relative to `home`."""

    def __init__(self, home: Path, tables: Path) -> None:
        self._home, self._tables = home, tables

    def path(self, asset: str, language: str | None, kind: type[Any]) -> Path:
        """Where an output of this kind (DataFrame, a Record type, str) lies."""
        suffix = {pd.DataFrame: ".parquet", str: ".txt"}.get(kind, ".json")
        return self._tables / asset / f"{language or ALL}{suffix}"

    def provenance(self, asset: str, language: str | None) -> Provenance | None:
        """The provenance of what is stored; None if there is none, or it is damaged, foreign or of another version."""
        try:
            found = Provenance.model_validate_json(self._provenance_path(asset, language).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        return found if (found.asset, found.language) == (asset, language) else None

    def languages(self, asset: str) -> list[str]:
        """Languages that an output of this asset is stored for."""
        found = (self._tables / asset).glob("*.provenance.json")
        return sorted(path.name.removesuffix(".provenance.json") for path in found)

    def write(
        self, asset: str, language: str | None, value: Any, *, files: Iterable[Path] = (), **known: Any
    ) -> Provenance:
        """Store a value, then its provenance, each atomically. `files` are others that were written with it.

        `known` are the fields of the provenance that are not taken from the bytes: settings, sources, inputs, and
        where there are any, checks and incomplete.
        """
        content = _to_bytes(value)
        found = Provenance(
            asset=asset,
            language=language,
            sha256=hashlib.sha256(content).hexdigest(),
            code_version=code_version(known["settings"]),
            files={self._relative(path): file_sha256(path) for path in files},
            **known,
        )
        self._provenance_path(asset, language).unlink(missing_ok=True)  # never beside a value that it does not describe
        write_atomic(self.path(asset, language, type(value)), content)
        text = found.model_dump_json(indent=1) + "\n"
        write_atomic(self._provenance_path(asset, language), text.encode("utf-8"))
        return found

    def read(self, asset: str, language: str | None, kind: type[Any]) -> Any:
        """The stored value. Raises InputError when it is not there, or its bytes are not those that were written."""
        return self.read_hashed(asset, language, kind)[0]

    def read_hashed(self, asset: str, language: str | None, kind: type[Any]) -> tuple[Any, str]:
        """The stored value and its sha256. Raises InputError as `read` does."""
        path, found = self.path(asset, language, kind), self.provenance(asset, language)
        remedy = "run `polar run` again, which makes it anew"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise InputError(f"{path} is not there: materialize {output_name(asset, language)} first.") from None
        if found is None:
            raise InputError(f"{path} has no record of what it was made from: {remedy}.")
        if hashlib.sha256(content).hexdigest() != found.sha256:
            raise InputError(f"{path} was changed after it was written (its sha256 differs): {remedy}.")
        if kind is pd.DataFrame:
            return pd.read_parquet(io.BytesIO(content)), found.sha256
        value = content.decode("utf-8").removesuffix("\n") if kind is str else parse_record(content, path, kind)
        return value, found.sha256

    def problems(self) -> dict[tuple[str, str | None], str]:
        """What is wrong with the stored outputs, in words, by asset and language. Reads every byte of them."""
        found = {}
        stems = {(path.parent.name, path.name.partition(".")[0]) for path in self._tables.glob("*/[!.]*")}
        for asset, stem in sorted(stems):
            language = None if stem == ALL else stem
            values = self._values(asset, language)
            there = self.provenance(asset, language)
            if there is None:
                found[asset, language] = f"{output_name(asset, language)} has no record of what it was made from"
            elif not values:
                found[asset, language] = f"{output_name(asset, language)} is missing"
            elif text := self._damage(there, values[0]):
                found[asset, language] = text
        return found

    def remove(self, asset: str, language: str | None) -> None:
        """Delete an output and its provenance, so that it is made again; further files are overwritten then."""
        for path in (self._provenance_path(asset, language), *self._values(asset, language)):
            path.unlink(missing_ok=True)

    def damage(self, found: Provenance, kind: type[Any]) -> str:
        """What is wrong with an output's files, in words; "" when every byte is as it was written."""
        return self._damage(found, self.path(found.asset, found.language, kind))

    def _values(self, asset: str, language: str | None) -> list[Path]:
        paths = (self.path(asset, language, kind) for kind in (pd.DataFrame, str, Record))
        return [path for path in paths if path.is_file()]

    def _damage(self, found: Provenance, main: Path) -> str:
        for path, expected in ((main, found.sha256), *((self._home / name, sha) for name, sha in found.files.items())):
            if not path.is_file():
                return f"{self._relative(path)} is missing"
            if file_sha256(path) != expected:
                return f"{self._relative(path)} was changed after it was written"
        return ""

    def _provenance_path(self, asset: str, language: str | None) -> Path:
        return self._tables / asset / f"{language or ALL}.provenance.json"

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._home).as_posix() if path.is_relative_to(self._home) else str(path)


def _to_bytes(value: Any) -> bytes:
    if isinstance(value, pd.DataFrame):
        buffer = io.BytesIO()
        value.to_parquet(buffer, index=False)
        return buffer.getvalue()
    if isinstance(value, Record):
        return (value.model_dump_json(indent=2) + "\n").encode("utf-8")
    return f"{value}\n".encode()
