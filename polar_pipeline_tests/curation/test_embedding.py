"""Vectors are unit, alike for alike texts, near the exact cosine, and computed once where that costs something."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from polar_pipeline.curation.embedding import CachedEmbedder, NgramEmbedder, make_embedder
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats

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
