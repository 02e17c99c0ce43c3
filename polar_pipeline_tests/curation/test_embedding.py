"""Vectors are unit, alike for alike texts, near the exact cosine, and computed once where that costs something."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from polar_pipeline.curation.embedding import CachedEmbedder, NgramEmbedder, make_embedder
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline_tests.synthesis.made import Running

TEXTS = [
    "Die Stadionwurst gehört verboten, und zwar sofort!",
    "die stadionwurst gehört verboten und zwar sofort",
    "Die Stadionwurst gehört verboten, und zwar morgen!",
    "आज मौसम अच्छा है और हम बाहर जा रहे हैं",
    "@USER https://x.y",
]


def test_unit_vectors_and_nothing_for_nothing() -> None:
    found = NgramEmbedder().embed(TEXTS)
    assert found.dtype == np.float32 and found.shape == (5, 1024)
    np.testing.assert_allclose(np.linalg.norm(found[:4], axis=1), 1, rtol=1e-5)
    assert not found[4].any()
    assert found[0] @ found[1] == pytest.approx(1, abs=1e-5)
    assert 0.6 < found[0] @ found[2] < 0.95 and abs(found[0] @ found[3]) < 0.1


def test_the_cosine_is_that_of_the_whole_counts_but_for_the_hashing() -> None:
    from polar_pipeline.corpus.duplicates import normalise

    counts = CountVectorizer(analyzer="char", ngram_range=(3, 5)).fit_transform([normalise(text) for text in TEXTS[:4]])
    counts.data = np.log1p(counts.data)
    found = NgramEmbedder().embed(TEXTS[:4])
    np.testing.assert_allclose(found @ found.T, cosine_similarity(counts), atol=4 / np.sqrt(1024))


class Counting:
    name = "counting"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def embed(self, texts: list[str]) -> Floats:
        self.seen += texts
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)


def test_a_text_is_embedded_once(tmp_path: Path) -> None:
    inner = Counting()
    first = CachedEmbedder(inner, tmp_path).embed(["a", "bb", "a"])
    second = CachedEmbedder(inner, tmp_path).embed(["ccc", "bb"])
    assert inner.seen == ["a", "bb", "ccc"]
    assert first[:, 0].tolist() == [1, 2, 1] and second[:, 0].tolist() == [3, 2]


def test_an_embedder_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"curation\.embedder 'no-such-model'"):
        make_embedder("no-such-model", tmp_path).embed(["a"])


@pytest.mark.slow
def test_an_endpoints_embeddings_are_asked_for_once_and_refusals_do_not_repeat_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    server = Running(tmp_path, {})
    try:
        embedder = make_embedder("api:small", tmp_path / "cache", server.url)
        found = embedder.embed(["abc", "abc", "a"])
        np.testing.assert_allclose(
            found, [[3, 1], [3, 1], [1, 1]] / np.linalg.norm([[3, 1], [3, 1], [1, 1]], axis=1)[:, None], rtol=1e-6
        )
        make_embedder("api:small", tmp_path / "cache", server.url).embed(["a"])
        assert server.get("count")["calls"] == 1
        with pytest.raises(InputError, match="'api:large': the endpoint gave no embeddings") as caught:
            make_embedder("api:large", tmp_path / "cache", server.url).embed(["a"])
    finally:
        server.stop()
    assert "sk-very-secret" not in str(caught.value)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="needs OPENAI_API_KEY"):
        make_embedder("api:small", tmp_path / "other", None).embed(["a"])
