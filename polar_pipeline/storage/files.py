"""Atomic writes: a reader sees the old file or the whole new one, never half of one.

Every write goes to a temporary name in the same folder, is flushed to the disk, and is renamed into place. A disk that is full, or
that may not be written to, is an `InputError`: nobody but the user can mend it.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from polar_pipeline.errors import InputError

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NOTHING = 1 << 20  # bytes, of which a page or two may be left
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def is_full(error: BaseException | None, home: Path | None = None) -> bool:
    """Whether a full disk is behind an error, whoever says so: the system, sqlite, or a library in its own words.

    Where sqlite cannot make its journal it speaks of an I/O error, which is believed if the disk of `home` has nothing left.
    """
    while error is not None:
        if "disk I/O error" in str(error) and home is not None and home.exists():
            return shutil.disk_usage(home).free < _NOTHING
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if "No space left on device" in str(error) or "database or disk is full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say in one sentence that `path` cannot be written, and what to do."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if is_full(error):
            raise InputError(
                f"{path} cannot be written, its disk is full (No space left on device): free space there, or set POLAR_HOME to a folder "
                f"on another disk, and start again; what was finished stays."
            ) from error
        if isinstance(error, OSError) and error.errno in _FORBIDDEN:
            raise InputError(
                f"{path} cannot be written ({error.strerror}): allow it, or set POLAR_HOME to another folder."
            ) from error
        raise


def write_atomic(path: Path, content: bytes) -> Path:
    """Put `content` at `path`, whole or not at all; parents are made. Returns `path`. Raises InputError when the disk is full or forbids it."""
    return write_atomic_with(path, lambda temporary: temporary.write_bytes(content))


def write_atomic_with(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`; nothing is left behind when it fails."""
    with _told(path):
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
    with _told(folder):
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
