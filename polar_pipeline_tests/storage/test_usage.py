"""Sizes, leftovers of killed processes, and copies of databases that are in use."""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from polar_pipeline.storage.files import write_atomic_with
from polar_pipeline.storage.usage import copy_database, delete, leftovers, usage


def test_what_an_atomic_write_leaves_when_it_is_killed_is_found_after_an_hour(tmp_path: Path) -> None:
    names: list[Path] = []

    def write(temporary: Path) -> None:
        names.append(temporary.rename(tmp_path / f"{temporary.name}"))  # what a kill here would leave
        raise KeyboardInterrupt

    target = tmp_path / "tables" / "deu.parquet"
    with pytest.raises(KeyboardInterrupt):
        write_atomic_with(target, write)
    (left,) = names
    left.write_text("half")
    (tmp_path / ".hidden").write_text("of somebody else")
    assert leftovers(tmp_path) == []
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() - 4000,) * 2)
    assert leftovers(tmp_path) == [left]


def test_sizes_and_deleting(tmp_path: Path) -> None:
    for name in ("a/b/c/one", "a/two"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"12345")
    assert usage([tmp_path / "a"]) == (2, 10) and str(usage([tmp_path / "a/two"])) == "1 file, 0.0 MB"
    delete(tmp_path / "a/b/c/one", tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "two"]
    delete(tmp_path / "a", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_database_is_copied_with_its_log_and_not_touched(tmp_path: Path) -> None:
    source, target = tmp_path / "one.db", tmp_path / "copy" / "two.db"
    with closing(sqlite3.connect(source)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        with database:
            database.execute("CREATE TABLE t (x)")
            database.execute("INSERT INTO t VALUES (7)")
        before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.is_file()}
        copy_database(source, target)
        assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir() if path.is_file()} == before
    with closing(sqlite3.connect(target)) as copy:
        assert copy.execute("SELECT x FROM t").fetchall() == [(7,)]
