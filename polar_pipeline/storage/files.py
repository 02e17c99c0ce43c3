"""Atomic writes: a reader sees the old file or the whole new one, never half of one.

Every write goes to a temporary name in the same folder, is flushed to the disk, and is renamed into place.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> Path:
    """Put `content` at `path`, whole or not at all; parents are made. Returns `path`. Raises OSError when the disk refuses."""
    return write_atomic_with(path, lambda temporary: temporary.write_bytes(content))


def write_atomic_with(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`; nothing is left behind when it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    temporary = Path(name)
    try:
        write(temporary)
        _flush(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_folder_atomic(folder: Path, fill: Callable[[Path], object]) -> Path:
    """Let `fill` write files into a temporary folder, then rename it to `folder`.

    For content-addressed folders: when `folder` exists already it holds the same bytes, so the new copy is dropped.
    """
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        fill(temporary)
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        temporary.chmod(0o755)
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.exists():  # somebody else who wrote the same content first is fine, anything else is not
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _flush(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
