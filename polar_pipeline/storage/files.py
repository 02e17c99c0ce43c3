"""Atomic writes: a reader sees the old file or the whole new one, never half of one.

Every write goes to a temporary name in the same folder, is flushed to the disk, and is renamed into place. A disk that
is full, or that may not be written to, is an `EnvironmentProblem`.
"""

import errno
import os
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from polar_pipeline.errors import EnvironmentProblem, InputError
from polar_pipeline.storage.home import Home

_FULL = {errno.ENOSPC, errno.EDQUOT}
_NOTHING = 1 << 20  # bytes, of which a page or two may be left
# what a machine refuses, whatever the program does
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_IMPOSSIBLE = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}  # paths that cannot be
_DATABASE = (
    "readonly database", "unable to open database", "disk I/O error", "malformed", "not a database",
    "database is locked", "no such table",
)  # fmt: skip


def is_full(error: BaseException | None, home: Path | None = None) -> bool:
    """Whether a full disk is behind an error, whoever says so: the system, sqlite, or a library in its own words.

    Where sqlite cannot make its journal it speaks of an I/O error; that counts if the disk of `home` has nothing left.
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


def known_problem(error: BaseException) -> InputError | None:
    """What a person can mend behind an error, in one sentence: bad input or a broken environment. None for a bug."""
    if isinstance(error, InputError):
        return error
    home = Home.from_environment().root
    if is_full(error, home):
        where = getattr(error, "filename", None) or home
        return EnvironmentProblem(
            f"the disk of {where} is full: free space there and start again; what was finished stays."
        )
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ImportError) and not (cause.name or "").startswith("polar_pipeline"):
            return EnvironmentProblem(
                f"the package {cause.name or 'that is named here'} cannot be imported ({_line(cause)}): install it, or "
                f"polar-pipeline again with its dependencies."
            )
        if isinstance(cause, sqlite3.DatabaseError) and any(words in str(cause) for words in _DATABASE):
            return EnvironmentProblem(
                f"a database in the home {home} cannot be used ({_line(cause)}): run `polar doctor`, which names it."
            )
        if isinstance(cause, OSError) and cause.errno in _REFUSED:
            return EnvironmentProblem(
                f"{cause.filename or home} cannot be used ({cause.strerror}): allow reading and writing it, or use "
                f"another home (--home)."
            )
        cause = cause.__cause__  # a context may be an error that was dealt with
    return None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say in one sentence that `path` cannot be written, and what to do."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if is_full(error):
            raise EnvironmentProblem(
                f"{path} cannot be written, its disk is full (No space left on device): free space there, or "
                f"write to another disk, and start again; what was finished stays."
            ) from error
        if isinstance(error, OSError) and error.errno in _REFUSED:
            raise EnvironmentProblem(
                f"{path} cannot be written ({error.strerror}): allow it, or write to another folder."
            ) from error
        if isinstance(error, OSError) and error.errno in _IMPOSSIBLE:
            raise InputError(f"{path} cannot be written ({error.strerror}): correct the path.") from error
        raise


def write_atomic(path: Path, content: bytes) -> Path:
    """Put `content` at `path`, whole or not at all; parents are made. Returns `path`.

    Raises EnvironmentProblem when the disk is full or forbids it.
    """
    return write_atomic_with(path, lambda temporary: temporary.write_bytes(content))


def write_atomic_with(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then rename it to `path`. Nothing is left behind if it fails."""
    with _explained(path):
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
    with _explained(folder):
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


def plain_name(name: str) -> str:
    """A name in small letters of any script, digits and underscores, for files and figures."""
    return re.sub(r"\W+", "_", name.casefold()).strip("_") or "label"
