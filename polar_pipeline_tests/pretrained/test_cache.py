"""A text is embedded once, the cache changes no result, and a damaged one is made again."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from polar_pipeline.errors import EnvironmentProblem, InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.pretrained.cache import EmbeddingCache


class Counting:
    """Embeds a text as its length and a third, which float16 cannot hold."""

    def __init__(self, identity: str = "one") -> None:
        self.identity = identity
        self.seen: list[str] = []

    def embed(self, texts: list[str], advance: Callable[[float], None] | None = None) -> Floats:
        if "stop" in texts:
            raise InputError("no more")
        self.seen += texts
        if advance:
            advance(len(texts))
        return np.array([[len(text), 1 / 3] for text in texts], dtype=np.float32)


def test_a_text_is_embedded_once_and_never_differs(tmp_path: Path) -> None:
    inner = Counting()
    cache = EmbeddingCache(inner, tmp_path / "a.sqlite")
    first, second = cache.embed(["a", "bb", "a"]), EmbeddingCache(inner, tmp_path / "a.sqlite").embed(["ccc", "bb"])
    assert inner.seen == ["a", "bb", "ccc"]
    np.testing.assert_array_equal(first[1], second[1])
    assert first.dtype == np.float32 and first[:, 0].tolist() == [1, 2, 1]
    assert first[0, 1] == np.float32(np.float16(1 / 3))
    assert cache.new(["a", "zz", "zz", "y"]) == ["zz", "y"] and cache.embed([]).shape[0] == 0


def test_another_way_of_embedding_has_other_vectors(tmp_path: Path) -> None:
    EmbeddingCache(Counting(), tmp_path / "a.sqlite").embed(["a"])
    other = Counting("another")
    EmbeddingCache(other, tmp_path / "a.sqlite").embed(["a"])
    assert other.seen == ["a"]


def test_what_was_embedded_before_a_failure_is_kept(tmp_path: Path) -> None:
    inner = Counting()
    with pytest.raises(InputError):
        EmbeddingCache(inner, tmp_path / "a.sqlite", batch=2).embed(["a", "bb", "ccc", "ddd", "stop"])
    assert sorted(inner.seen) == ["a", "bb", "ccc", "ddd"]
    assert EmbeddingCache(inner, tmp_path / "a.sqlite").new(["a", "bb", "ccc", "ddd", "stop"]) == ["stop"]


def test_progress_counts_texts_that_were_known(tmp_path: Path) -> None:
    seen: list[float] = []
    EmbeddingCache(Counting(), tmp_path / "a.sqlite").embed(["a"])
    EmbeddingCache(Counting(), tmp_path / "a.sqlite", batch=1).embed(["a", "bb", "ccc"], seen.append)
    assert seen == [2, 3, 3]


def test_a_damaged_vector_is_computed_again(tmp_path: Path) -> None:
    path = tmp_path / "a.sqlite"
    EmbeddingCache(Counting(), path).embed(["a", "bb"])
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE vectors SET vector = zeroblob(4) WHERE key = (SELECT min(key) FROM vectors)")
    inner = Counting()
    assert EmbeddingCache(inner, path).embed(["a", "bb"])[:, 0].tolist() == [1, 2] and len(inner.seen) == 1


@pytest.mark.parametrize("content", [b"no database at all", b""])
def test_a_file_that_is_no_database_is_made_again(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.sqlite"
    path.write_bytes(content)
    cache = EmbeddingCache(Counting(), path)
    assert cache.embed(["a"])[0, 0] == 1 and cache.new(["a"]) == []


def test_a_cache_that_may_not_be_written_is_read(tmp_path: Path) -> None:
    EmbeddingCache(Counting(), tmp_path / "a.sqlite").embed(["a"])
    inner = Counting()
    EmbeddingCache(inner, tmp_path / "a.sqlite", read_only=True).embed(["a", "bb"])
    assert inner.seen == ["bb"] and EmbeddingCache(inner, tmp_path / "a.sqlite").new(["bb"]) == ["bb"]


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblem, match=r"a\.sqlite cannot be written"):
        EmbeddingCache(Counting(), tmp_path / "file" / "a.sqlite").embed(["a"])
