"""Embedders: texts into unit vectors whose dot product says how alike two texts are.

The default needs no weights: counts of character n-grams, hashed with random signs, so that dot products are those of the whole
count vectors up to an error of 1/sqrt(dimensions) (Weinberger et al. 2009). Vectors are cached by the content of the text.
"""

import os
from pathlib import Path
from typing import Protocol

import numpy as np

from polar_pipeline.corpus.duplicates import normalise
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.storage.files import write_atomic_with
from polar_pipeline.storage.fingerprint import fingerprint

NGRAMS = "ngrams"
API = "api:"
_BATCH = 256  # texts of one call of an endpoint
_DIMENSIONS = 1024


class Embedder(Protocol):
    """What deduplication needs of an embedder."""

    name: str

    def embed(self, texts: list[str]) -> Floats:
        """Unit vectors, float32 (texts, dimensions); a text without content is a zero vector."""


class NgramEmbedder:
    """Characters 3-5 of the normalised text, log counts."""

    name = NGRAMS

    def embed(self, texts: list[str]) -> Floats:
        """Unit vectors, float32 (texts, 1024)."""
        from sklearn.feature_extraction.text import HashingVectorizer
        from sklearn.preprocessing import normalize

        counter = HashingVectorizer(analyzer="char", ngram_range=(3, 5), n_features=_DIMENSIONS, norm=None)
        counts = counter.transform([normalise(text) for text in texts])
        counts.data = np.sign(counts.data) * np.log1p(np.abs(counts.data))
        vectors: Floats = normalize(counts).toarray().astype(np.float32)
        return vectors


class SentenceEmbedder:
    """Any sentence-transformers model, by name; downloaded by that library on first use."""

    def __init__(self, name: str) -> None:
        self.name = name

    def embed(self, texts: list[str]) -> Floats:
        """Unit vectors, float32 (texts, dimensions of the model). Raises InputError when it cannot be loaded."""
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise InputError(
                f"curation.embedder {self.name!r} needs the package sentence-transformers: install it, or use {NGRAMS}."
            ) from None
        try:
            model = SentenceTransformer(self.name)
        except (OSError, ValueError) as error:
            raise InputError(
                f"curation.embedder {self.name!r} cannot be loaded ({' '.join(str(error).split())[:200]}): correct the name, or use {NGRAMS}."
            ) from error
        vectors: Floats = model.encode(texts, normalize_embeddings=True, convert_to_numpy=True).astype(np.float32)
        return vectors


class EndpointEmbedder:
    """Embeddings of an OpenAI-style endpoint: the name of its model after `api:`. Key and address as for synthesis."""

    def __init__(self, name: str, base_url: str | None) -> None:
        self.name = f"{API}{name}"
        self._model, self._base_url = name, base_url

    def embed(self, texts: list[str]) -> Floats:
        """Unit vectors, float32 (texts, dimensions of the model). Raises InputError when the endpoint refuses."""
        import openai

        if not os.environ.get("OPENAI_API_KEY"):
            raise InputError(f"curation.embedder {self.name!r} needs OPENAI_API_KEY: export the endpoint's key.")
        client = openai.OpenAI(base_url=self._base_url, max_retries=5)
        found: list[list[float]] = []
        try:
            for start in range(0, len(texts), _BATCH):
                lot = [text or " " for text in texts[start : start + _BATCH]]
                found += [row.embedding for row in client.embeddings.create(model=self._model, input=lot).data]
        except openai.OpenAIError as error:  # its own words may repeat the key
            raise InputError(
                f"curation.embedder {self.name!r}: the endpoint gave no embeddings ({type(error).__name__}): "
                f"correct the model's name, the key or the address, or use {NGRAMS}."
            ) from None
        vectors = np.array(found, dtype=np.float32)
        unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return unit


class CachedEmbedder:
    """Another embedder, asked once per text: vectors lie in one safetensors file per set of texts that was new together."""

    def __init__(self, inner: Embedder, folder: Path) -> None:
        self.name = inner.name
        self._inner, self._folder = inner, folder / fingerprint(inner.name)[:16]

    def embed(self, texts: list[str]) -> Floats:
        """Unit vectors, float32 (texts, dimensions), from the cache where it has them."""
        keys = [fingerprint(text) for text in texts]
        known = self._read(set(keys))
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if new:
            vectors = self._inner.embed(list(new.values()))
            self._write(list(new), vectors)
            known |= dict(zip(new, vectors, strict=True))
        return np.stack([known[key] for key in keys]) if keys else np.zeros((0, 1), dtype=np.float32)

    def _read(self, wanted: set[str]) -> dict[str, Floats]:
        from safetensors import safe_open

        found: dict[str, Floats] = {}
        for path in sorted(self._folder.glob("*.safetensors")):
            with safe_open(path, framework="numpy") as file:
                keys: list[str] = file.metadata()["keys"].split(",")
                mine = [place for place, key in enumerate(keys) if key in wanted and key not in found]
                if mine:
                    vectors = file.get_tensor("vectors")
                    found |= {keys[place]: vectors[place] for place in mine}
        return found

    def _write(self, keys: list[str], vectors: Floats) -> None:
        from safetensors.numpy import save_file

        path = self._folder / f"{fingerprint(keys)[:16]}.safetensors"
        write_atomic_with(path, lambda file: save_file({"vectors": vectors}, file, {"keys": ",".join(keys)}))


def make_embedder(name: str, cache: Path, base_url: str | None = None) -> Embedder:
    """The embedder of this name; `base_url` is for those of an endpoint. The default is faster than a cache would be."""
    if name == NGRAMS:
        return NgramEmbedder()
    inner = EndpointEmbedder(name.removeprefix(API), base_url) if name.startswith(API) else SentenceEmbedder(name)
    return CachedEmbedder(inner, cache)
