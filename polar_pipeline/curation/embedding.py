"""Embedders: texts into unit vectors whose dot product says how alike two texts are.

The default needs no weights: counts of character n-grams, hashed with random signs, so that dot products are those of the whole
count vectors up to an error of 1/sqrt(dimensions) (Weinberger et al. 2009). Vectors are cached by the content of the text.
"""

from pathlib import Path
from typing import Protocol

import numpy as np

from polar_pipeline.corpus.text import normalise
from polar_pipeline.curation.endpoint_embedding import API, EndpointEmbedder
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.storage.files import write_atomic_with
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.synthesis.answers import NO_CALLS, Calls
from polar_pipeline.synthesis.endpoint import Endpoint

NGRAMS = "ngrams"
LOT = 256  # texts of one call of an endpoint
_DIMENSIONS = 1024


class Embedder(Protocol):
    """What deduplication needs of an embedder."""

    name: str

    @property
    def calls(self) -> Calls:
        """Calls of an endpoint that were made so far."""

    def embed(self, texts: list[str]) -> Floats:
        """Unit vectors, float32 (texts, dimensions); a text without content is a zero vector."""


class NgramEmbedder:
    """Characters 3-5 of the normalised text, log counts."""

    name, calls = NGRAMS, NO_CALLS

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

    calls = NO_CALLS

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


class CachedEmbedder:
    """Another embedder, asked once per text: vectors lie in one safetensors file per set of texts that was new together."""

    def __init__(self, inner: Embedder, folder: Path, lot: int | None = None) -> None:
        """`lot` texts are asked for and written at a time, so that what was paid for is not lost; None is all."""
        self.name = inner.name
        self._inner, self._folder, self._lot = inner, folder / fingerprint(inner.name)[:16], lot

    @property
    def calls(self) -> Calls:
        """Those of the other embedder."""
        return self._inner.calls

    def new(self, texts: list[str]) -> list[str]:
        """Those that the cache lacks, each once."""
        keys = {fingerprint(text): text for text in texts}
        known = self._read(set(keys))
        return [text for key, text in keys.items() if key not in known]

    def embed(self, texts: list[str]) -> Floats:
        """Unit vectors, float32 (texts, dimensions), from the cache where it has them."""
        keys = [fingerprint(text) for text in texts]
        known = self._read(set(keys))
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        for start in range(0, len(new), self._lot or len(new) or 1):
            lot = list(new)[start : start + (self._lot or len(new))]
            vectors = self._inner.embed([new[key] for key in lot])
            self._write(lot, vectors)
            known |= dict(zip(lot, vectors, strict=True))
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


def make_embedder(name: str, cache: Path, endpoint: Endpoint | None = None) -> Embedder:
    """The embedder of this name; `endpoint` is for those that start with `api:`. The default is faster than a cache would be."""
    if name == NGRAMS:
        return NgramEmbedder()
    if not name.startswith(API):
        return CachedEmbedder(SentenceEmbedder(name), cache)
    if endpoint is None:
        raise InputError(f"curation.embedder {name!r} needs an endpoint to ask: use {NGRAMS} here.")
    return CachedEmbedder(EndpointEmbedder(name.removeprefix(API), endpoint), cache, lot=LOT)
