"""Adapters on disk: content-addressed folders of safetensors and JSON, and the `AdapterRef` that points to one.

A folder's name is the hash of its files, which is checked at every reading. Weights never travel between assets.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polar_pipeline.errors import InputError
from polar_pipeline.storage.files import write_folder_atomic
from polar_pipeline.storage.fingerprint import canonical_json, fingerprint, folder_sha256
from polar_pipeline.storage.record import Record

WEIGHTS, META = "adapter.safetensors", "meta.json"
NAME_DIGITS = 16  # of the sha256 that are an adapter folder's name

Tensors = dict[str, NDArray[Any]]
Files = Mapping[str, bytes]


class AdapterRef(Record):
    """Where an adapter lies and what it was made from."""

    path: str  # relative to the folder of adapters, so that a home can be moved
    sha256: str
    backbone: str
    language: str
    config_fingerprint: str
    posts_fingerprint: str


def save_adapter(
    root: Path, tensors: Tensors, meta: dict[str, Any], provenance: dict[str, str], parts: Files | None = None
) -> AdapterRef:
    """Write an adapter under `root`, atomically. The same content is stored once; a damaged copy is replaced.

    `meta` is JSON, `provenance` are the reference's fields but path and hash, `parts` are further files by their path
    in the folder, such as `final-seed-0/adapter_config.json`.
    """
    from safetensors.numpy import save

    files = {
        WEIGHTS: save({name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}),
        META: canonical_json({**meta, "provenance": provenance}),
        **(parts or {}),
    }
    name = fingerprint([[file, hashlib.sha256(content).hexdigest()] for file, content in sorted(files.items())])
    path = f"{provenance['backbone']}/{provenance['language']}/{name[:NAME_DIGITS]}"

    def fill(folder: Path) -> None:
        for file, content in files.items():
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes(content)

    if (root / path).is_dir() and folder_sha256(root / path) != name:
        shutil.rmtree(root / path)
    write_folder_atomic(root / path, fill)
    ref = AdapterRef(path=path, sha256=name, **provenance)
    verify_adapter(root, ref)
    return ref


def load_adapter(root: Path, ref: AdapterRef) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Tensors and meta of an adapter, after its hash was checked. Raises InputError if it is not what `ref` says."""
    from safetensors.numpy import load_file

    folder = verify_adapter(root, ref)
    meta = json.loads((folder / META).read_text(encoding="utf-8"))
    check_provenance(ref, meta.get("provenance", {}), "is not what its reference says")
    return load_file(folder / WEIGHTS), meta


def adapter_folders(root: Path) -> list[Path]:
    """All adapters below `root`, the folder of adapters."""
    return sorted(meta.parent for meta in root.glob(f"*/*/*/{META}"))


def damaged_adapters(root: Path) -> list[Path]:
    """Adapters whose bytes are not those that they are named after. Reads all of them."""
    return [folder for folder in adapter_folders(root) if folder_sha256(folder)[:NAME_DIGITS] != folder.name]


def verify_adapter(root: Path, ref: AdapterRef) -> Path:
    """The adapter's folder. Raises InputError if it is gone or its bytes are not those that were written."""
    folder = root / ref.path
    remedy = f"materialize {ref.backbone}_adapter for {ref.language} again"
    if not folder.is_dir():
        raise InputError(f"adapter {folder} does not exist: {remedy}.")
    if folder_sha256(folder) != ref.sha256:
        raise InputError(
            f"adapter {folder} was changed after it was written (its sha256 differs): remove it and {remedy}."
        )
    return folder


def check_provenance(
    ref: AdapterRef, expected: dict[str, str], problem: str = "does not fit these posts and settings"
) -> None:
    """Raises InputError that names every field of the reference which is not as expected."""
    wrong = [
        f"{key} is {getattr(ref, key)[:12]!r}, not {value[:12]!r}"
        for key, value in expected.items()
        if getattr(ref, key) != value
    ]
    if wrong:
        backbone, language = expected.get("backbone", ref.backbone), expected.get("language", ref.language)
        raise InputError(
            f"adapter {ref.path} {problem} ({'; '.join(wrong)}): materialize {backbone}_adapter for {language} again."
        )
