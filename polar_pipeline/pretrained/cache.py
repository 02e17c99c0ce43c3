"""Vectors that were computed before: a database per model, shared by folds, languages, runs and `predict`.

A vector is found by its text and the identity of what embedded it, so that models of one name do not share vectors.
Vectors are kept as float16, and are rounded to it also when they are new, so that a cache changes no result. Each row
has a checksum: a damaged one is computed again.
"""

import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Protocol

import numpy as np

from polar_pipeline.errors import EnvironmentProblem
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.storage.usage import SQLITE

Vector = np.typing.NDArray[np.float16]

_BATCH = 500  # rows of a query: SQLite takes at most 999 values in old versions
_WAIT = 120.0  # seconds for another process that writes


class TextEmbedder(Protocol):
    """What the cache asks: which vectors these are, and vectors float32 (texts, dimensions)."""

    @property
    def identity(self) -> str:
        """Of all that a vector depends on beside its text."""

    def embed(self, texts: list[str], advance: Callable[[float], None] | None = None) -> Floats:
        """Vectors, float32 (texts, dimensions)."""


class EmbeddingCache:
    """Asks an embedder once for every text."""

    def __init__(self, inner: TextEmbedder, path: Path, batch: int | None = None, read_only: bool = False) -> None:
        """`batch` texts are asked and kept at a time, so that what took long is not lost; None for all at once."""
        self._inner, self._path, self._batch, self._read_only = inner, path, batch, read_only

    def new(self, texts: list[str]) -> list[str]:
        """The texts that are not kept, each once."""
        keys = self._keys(texts)
        known = self._read(set(keys))
        return list(dict.fromkeys(text for key, text in zip(keys, texts, strict=True) if key not in known))

    def embed(self, texts: list[str], advance: Callable[[float], None] | None = None) -> Floats:
        """Vectors, float32 (texts, dimensions); `advance` is called with the number of texts done."""
        keys = self._keys(texts)
        known = self._read(set(keys))
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        # near one length, so that batches are full
        order = sorted(new, key=lambda key: (len(new[key]), key))
        size, before = self._batch or len(order) or 1, len(texts) - len(order)
        for start in range(0, len(order), size):
            some = order[start : start + size]
            done = (lambda count, start=start: advance(before + start + count)) if advance else None
            vectors = self._inner.embed([new[key] for key in some], done).astype(np.float16)
            found = dict(zip(some, vectors, strict=True))
            self._write(found)
            known |= found
        if advance:
            advance(len(texts))
        return np.stack([known[key] for key in keys]).astype(np.float32) if keys else np.zeros((0, 1), np.float32)

    def _keys(self, texts: list[str]) -> list[bytes]:
        identity = self._inner.identity
        return [bytes.fromhex(fingerprint([identity, text]))[:16] for text in texts]

    def _read(self, wanted: set[bytes]) -> dict[bytes, Vector]:
        if not self._path.is_file():
            return {}
        found: dict[bytes, Vector] = {}
        asked = sorted(wanted)
        try:
            with closing(self._open()) as database:
                for start in range(0, len(asked), _BATCH):
                    some = asked[start : start + _BATCH]
                    marks = ",".join("?" * len(some))
                    rows = database.execute(f"SELECT key, checksum, vector FROM vectors WHERE key IN ({marks})", some)
                    found |= {
                        key: np.frombuffer(vector, np.float16)
                        for key, checksum, vector in rows
                        if checksum == _crc(key, vector)
                    }
        except sqlite3.OperationalError:  # it has no table yet, or may not be read: then all is computed
            return {}
        except sqlite3.DatabaseError:  # damaged: all of it can be computed again
            self._remove()
            return {}
        return found

    def _write(self, found: dict[bytes, Vector]) -> None:
        if self._read_only:
            return
        rows = [(key, _crc(key, vector.tobytes()), vector.tobytes()) for key, vector in sorted(found.items())]
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as database, database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, checksum INTEGER, vector BLOB)"
                )
                database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
        except (OSError, sqlite3.DatabaseError) as error:
            raise EnvironmentProblem(
                f"{self._path} cannot be written ({error}): free the disk, or allow writing in its folder."
            ) from error

    def _remove(self) -> None:
        if not self._read_only:
            for end in SQLITE:
                Path(f"{self._path}{end}").unlink(missing_ok=True)

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=_WAIT)


def _crc(key: bytes, vector: bytes) -> int:
    return zlib.crc32(key + vector)
