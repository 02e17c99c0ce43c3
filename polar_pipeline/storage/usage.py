"""What lies on the disk: sizes, what killed processes left behind, and copies of databases that are in use."""

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

SQLITE = ("", "-wal", "-shm")  # ends of the names of a database's files
_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}|\.new-[a-z0-9_]{8}")  # as `tempfile` names what is then renamed into place
_HOUR = 3600.0


class Usage(NamedTuple):
    """A number of files and their bytes."""

    files: int = 0
    bytes: int = 0

    def __str__(self) -> str:
        """Such as `3 files, 1.2 MB`."""
        return f"{self.files} file{'' if self.files == 1 else 's'}, {megabytes(self.bytes)}"


def megabytes(size: int) -> str:
    """Bytes in words, such as `1.2 MB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def usage(paths: Iterable[Path]) -> Usage:
    """Files and folders together; what vanishes meanwhile counts as nothing."""
    count = size = 0
    for path in paths:
        for file in files_below(path):
            try:
                size += file.lstat().st_size
                count += 1
            except FileNotFoundError:
                continue
    return Usage(count, size)


def files_below(path: Path) -> Iterator[Path]:
    """All files in a folder and its folders, or the file itself; links are not followed."""
    if path.is_file() or path.is_symlink():
        yield path
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)


def delete(path: Path, root: Path) -> None:
    """Delete a file or a whole folder below `root`, and the folders between them that it leaves empty."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    for folder in path.relative_to(root).parents[:-1]:
        if any((root / folder).iterdir()):
            return
        (root / folder).rmdir()


def leftovers(root: Path) -> list[Path]:
    """Temporary files and folders below `root` that processes which were killed left there more than an hour ago."""
    found, before = [], time.time() - _HOUR
    for folder, folders, files in os.walk(root):
        names = [name for name in (*folders, *files) if _TEMPORARY.fullmatch(name)]
        paths = [Path(folder, name) for name in names]
        found += [path for path in paths if _last_change(path) < before]
        folders[:] = [name for name in folders if name not in names]
    return sorted(found)


def _last_change(path: Path) -> float:
    try:
        return max([path.lstat().st_mtime, *(file.lstat().st_mtime for file in files_below(path))])
    except FileNotFoundError:  # its process lives, and has renamed it
        return time.time()


def copy_database(database: Path, target: Path) -> None:
    """Copy a sqlite database as it is on the disk, with its write-ahead log, without opening it.

    Opening would write: sqlite makes files beside a database that is only read, too.
    """
    files = [(Path(f"{database}{end}"), Path(f"{target}{end}")) for end in SQLITE[:2]]
    target.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(10):  # until nobody has written meanwhile
        before = [_state(source) for source, _ in files]
        for source, copy in files:
            copy.unlink(missing_ok=True)
            try:
                shutil.copyfile(source, copy)
            except FileNotFoundError:  # there is no log, or it was moved into the database
                continue
        if before == [_state(source) for source, _ in files]:
            return


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
