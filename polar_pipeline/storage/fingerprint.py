"""Fingerprints: the same content has the same sha256, whatever the machine, the order of keys or the time."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces; NaN is refused (ValueError), because it does not compare."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def fingerprint(value: Any) -> str:
    """sha256 (64 hex digits) of anything JSON can say."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def frame_fingerprint(frame: "pd.DataFrame", columns: list[str]) -> str:
    """sha256 of the named columns of `frame`, in the order of its rows; missing values count as null."""
    digest = hashlib.sha256()
    for column in columns:
        values = frame[column].astype(object).where(frame[column].notna(), None).tolist()
        digest.update(canonical_json([column, values]))
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def folder_sha256(folder: Path, without: frozenset[str] = frozenset()) -> str:
    """sha256 over the paths and contents of the files under a folder, sorted by path, but those `without`."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    return fingerprint([[path, file_sha256(file)] for path, file in sorted(files.items()) if path not in without])
