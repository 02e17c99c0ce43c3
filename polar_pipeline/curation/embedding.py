"""Embedders: texts to unit vectors whose dot product says how alike two texts are.

The default needs no weights: counts of character n-grams, hashed with random signs, so that dot products are those of
the whole count vectors up to an error of 1/sqrt(dimensions) (Weinberger et al. 2009).
"""

import asyncio
import json
from pathlib import Path
from typing import Protocol

import numpy as np

from polar_pipeline.corpus.text import normalise
from polar_pipeline.errors import EnvironmentProblem, InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.storage.files import write_atomic_with
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.synthesis.client import Client, Endpoint, address, open_sdk
from polar_pipeline.synthesis.formats import CallResult, embedding_dollars, is_token_count
from polar_pipeline.synthesis.ledger import NO_CALLS, Budget, CallSummary, Ledger
from polar_pipeline.synthesis.rate_limit import RateLimiter, RetryPolicy

NGRAMS = "ngrams"
API = "api:"  # before the name of an endpoint's model
TEXTS_PER_CALL = 256  # of an endpoint
_DIMENSIONS = 1024


class Embedder(Protocol):
    """What deduplication needs of an embedder."""

    name: str

    @property
    def calls(self) -> CallSummary:
        """Calls of an endpoint so far."""

    def embed(self, texts: list[str]) -> Floats:
        """Unit vectors, float32 (texts, dimensions); a text without content is a zero vector."""


class NgramEmbedder:
    """Log counts of the character 3- to 5-grams of the normalised text."""

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
    """A sentence-transformers model, which that library downloads on first use."""

    calls = NO_CALLS

    def __init__(self, name: str) -> None:
        self.name = name

    def embed(self, texts: list[str]) -> Floats:
        """Unit vectors, float32 (texts, dimensions of the model). Raises InputError if it cannot be loaded."""
        setting = f"curation.embedder {self.name!r}"
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError:
            raise EnvironmentProblem(
                f"{setting} needs the package sentence-transformers: install it, or use {NGRAMS}."
            ) from None
        try:
            model = SentenceTransformer(self.name)
        except (OSError, ValueError) as error:
            why = " ".join(str(error).split())[:200]
            raise InputError(f"{setting} cannot be loaded ({why}): correct the name, or use {NGRAMS}.") from error
        vectors: Floats = model.encode(texts, normalize_embeddings=True, convert_to_numpy=True).astype(np.float32)
        return vectors


class EndpointEmbedder:
    """A model of the endpoint. Key, address, time-out and caps are those of synthesis; every call is in the ledger."""

    def __init__(self, model: str, endpoint: Endpoint) -> None:
        self.name = f"{API}{model}"
        self._model, self._endpoint, self._settings = model, endpoint, endpoint.settings
        self.calls: CallSummary = NO_CALLS

    def embed(self, texts: list[str]) -> Floats:
        """Unit vectors, float32 (texts, dimensions of the model). Raises InputError if the endpoint gives none."""
        texts = [text or " " for text in texts]
        key = fingerprint([address(self._settings.base_url), self._model, texts])
        budget = Budget(self._settings.max_dollars, self._settings.max_requests)
        with Ledger(self._endpoint.ledgers, self._endpoint.language.code, budget) as ledger:
            try:
                vectors = asyncio.run(self._ask(key, texts, ledger))
            finally:
                self.calls = self.calls.plus(ledger.calls([key]))
        unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return unit

    async def _ask(self, key: str, texts: list[str], ledger: Ledger) -> Floats:
        """Call until there are vectors, at most as often as the settings allow."""
        limiter, retries = RateLimiter(1, ledger), RetryPolicy(self._settings)
        async with open_sdk(self._settings) as sdk:
            client = Client(sdk, self._settings, limiter, ledger)
            while True:
                async with limiter:
                    result, vectors = await self._call(key, texts, client, ledger)
                if vectors is not None:
                    return vectors
                if not await retries.wait_to_retry(result):
                    break
        said = f", {result.message!r}" if result.message else ""
        raise InputError(
            f"curation.embedder {self.name!r}: the endpoint gave no embeddings ({result.failure or 'malformed'}{said}, "
            f"{address(self._settings.base_url)}): correct the model's name, the key or the address, or use {NGRAMS}."
        )

    async def _call(
        self, key: str, texts: list[str], client: Client, ledger: Ledger
    ) -> tuple[CallResult, Floats | None]:
        # no tokenizer makes more tokens than bytes
        worst = embedding_dollars(sum(len(text.encode("utf-8")) for text in texts), self._settings)
        call = ledger.reserve(key, worst)
        if call is None:
            raise InputError(
                f"{ledger.reached_cap(worst)} leaves no room for curation.embedder {self.name!r}: raise it."
            )
        result = await client.embed(call, self._model, texts)
        if result.body is None:
            return result, None
        vectors, tokens = _parse(result.body, len(texts))
        price = worst if tokens is None else embedding_dollars(tokens, self._settings)
        ledger.release(call, "malformed" if vectors is None else "embedded", price)
        return result, vectors


class CachedEmbedder:
    """Asks another embedder once per text. Vectors lie in a safetensors file per set of texts asked together."""

    def __init__(self, inner: Embedder, folder: Path, batch_size: int | None = None) -> None:
        """So many texts are asked and written at a time, so that what was paid for is not lost; None for all."""
        self.name = inner.name
        self._inner, self._folder, self._batch_size = inner, folder / fingerprint(inner.name)[:16], batch_size

    @property
    def calls(self) -> CallSummary:
        """Those of the other embedder."""
        return self._inner.calls

    def new(self, texts: list[str]) -> list[str]:
        """The texts that the cache lacks, each once."""
        keys = {fingerprint(text): text for text in texts}
        known = self._read(set(keys))
        return [text for key, text in keys.items() if key not in known]

    def embed(self, texts: list[str]) -> Floats:
        """Unit vectors, float32 (texts, dimensions), from the cache where it has them."""
        new = self.new(texts)
        size = self._batch_size or len(new) or 1
        for start in range(0, len(new), size):
            batch = new[start : start + size]
            self._write([fingerprint(text) for text in batch], self._inner.embed(batch))
        keys = [fingerprint(text) for text in texts]
        known = self._read(set(keys))
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
    """The embedder of a setting; those that start with `api:` need an `endpoint`. n-grams are faster than a cache."""
    if name == NGRAMS:
        return NgramEmbedder()
    if not name.startswith(API):
        return CachedEmbedder(SentenceEmbedder(name), cache)
    if endpoint is None:
        raise InputError(f"curation.embedder {name!r} needs an endpoint to ask: use {NGRAMS} here.")
    return CachedEmbedder(EndpointEmbedder(name.removeprefix(API), endpoint), cache, TEXTS_PER_CALL)


def _parse(body: str, wanted: int) -> tuple[Floats | None, int | None]:
    """Vectors and tokens, each None if the answer has none. Never raises, because the answer may have been paid for."""
    try:
        content = json.loads(body)
        rows = sorted(content["data"], key=lambda row: int(row["index"]))
        vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None, None
    usage = content.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    whole = vectors.ndim == 2 and len(vectors) == wanted and bool(np.isfinite(vectors).all())
    return (vectors if whole else None), tokens if is_token_count(tokens) else None
