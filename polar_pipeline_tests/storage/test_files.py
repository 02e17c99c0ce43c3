"""Atomic writes leave the old content or the new, and never a temporary file."""

import errno
import multiprocessing
import os
import signal
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from polar_pipeline.errors import InputError
from polar_pipeline.storage.files import is_full, plain_name, write_atomic, write_atomic_with, write_folder_atomic


def test_content_replaces_and_parents_are_made(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.txt"
    write_atomic(target, b"one")
    assert write_atomic(target, b"two") == target
    assert target.read_bytes() == b"two"
    assert [file.name for file in target.parent.iterdir()] == ["b.txt"]
    assert target.stat().st_mode & 0o777 == 0o644


def test_a_failed_write_keeps_the_old_content(tmp_path: Path) -> None:
    target = write_atomic(tmp_path / "file", b"old")

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic_with(target, fail)
    assert target.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def _write_for_ever(target: Path) -> None:
    while True:
        for letter in (b"a", b"b"):
            write_atomic(target, letter * 100_000)


@pytest.mark.slow
def test_a_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    for round_ in range(8):
        writer = multiprocessing.get_context("spawn").Process(target=_write_for_ever, args=(target,))
        writer.start()
        while not target.exists():
            time.sleep(0.01)
        time.sleep(0.01 * round_)
        os.kill(writer.pid or 0, signal.SIGKILL)
        writer.join()
        assert target.read_bytes() in (b"a" * 100_000, b"b" * 100_000)


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "one").write_text("1")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_folder_atomic(tmp_path / "new", fail)
    assert list(tmp_path.iterdir()) == []
    write_folder_atomic(tmp_path / "new", lambda folder: (folder / "one").write_text("1"))
    assert (tmp_path / "new" / "one").read_text() == "1"
    write_folder_atomic(tmp_path / "new", lambda folder: (folder / "one").write_text("other"))
    assert (tmp_path / "new" / "one").read_text() == "1"


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.ENOSPC, "its disk is full .*: free space there, or write to another disk"),
        (errno.EDQUOT, "its disk is full"),
        (errno.EACCES, r"\(Permission denied\): allow it, or write to another folder"),
        (errno.EROFS, "Read-only file system"),
    ],
)
def test_a_disk_that_refuses_is_one_sentence_that_names_the_path(tmp_path: Path, number: int, sentence: str) -> None:
    def fail(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    for write, name in ((write_atomic_with, "file"), (write_folder_atomic, "folder")):
        with pytest.raises(InputError, match=sentence) as caught:
            write(tmp_path / name, fail)
        assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_known_in_whatever_words(tmp_path: Path) -> None:
    def nested() -> Exception:
        try:
            try:
                raise OSError(errno.ENOSPC, "No space left on device")
            except OSError as error:
                raise RuntimeError("the table was not written") from error
        except RuntimeError as error:
            return error

    assert is_full(nested()) and is_full(sqlite3.OperationalError("database or disk is full"))
    assert is_full(ValueError("I/O error: No space left on device (os error 28)"))  # as safetensors says it
    assert not is_full(OSError(errno.ENOENT, "No such file")) and not is_full(ValueError("full"))


@pytest.mark.parametrize(("free", "full"), [(4096, True), (1 << 30, False)])
def test_an_io_error_of_sqlite_is_a_full_disk_where_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, full: bool
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=free))
    error = sqlite3.OperationalError("disk I/O error")
    assert is_full(error, tmp_path) == full
    assert not is_full(error) and not is_full(error, tmp_path / "gone")


def test_names_of_any_script_stay_apart() -> None:
    names = ["macro-F1", "racial/ethnic", "غضب", "злость", "怒り", "..."]
    assert [plain_name(name) for name in names] == ["macro_f1", "racial_ethnic", "غضب", "злость", "怒り", "label"]
