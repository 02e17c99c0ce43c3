"""Embedders: texts to unit vectors whose dot product says how alike two texts are.

The default needs no weights: counts of character n-grams (`corpus.text.ngram_vectors`).
"""

import asyncio
import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from polar_pipeline.corpus.text import ngram_vectors
from polar_pipeline.endpoint.client import Client, Endpoint
from polar_pipeline.endpoint.completion import token_count
from polar_pipeline.endpoint.connection import address, open_sdk
from polar_pipeline.endpoint.formats import CallResult, embedding_dollars
from polar_pipeline.endpoint.ledger import NO_CALLS, Budget, CallSummary, Ledger
from polar_pipeline.endpoint.rate_limit import RateLimiter, RetryPolicy
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.pretrained.cache import EmbeddingCache
from polar_pipeline.pretrained.encoder import ENCODED_TOGETHER, Encoder, cache_file
from polar_pipeline.settings.models import Encoding, ModelSource
from polar_pipeline.storage.fingerprint import fingerprint

NGRAMS = "ngrams"
API = "api:"  # before the name of an endpoint's model
TEXTS_PER_CALL = 256  # of an endpoint
_LEAST_TEXT = 64  # characters below which no text is too long for any model
# refusals that fewer texts can mend, and those that a shorter one can; 413 says it by itself
_TOO_LONG_WORDS = (
    r"too (large|long|big)|context (length|size|window)|(maximum|max)[ _](\w+[ _]){0,3}(tokens|length)|"
    r"exceed\w* .{0,40}(tokens?|length|size|context)|(tokens?|input|sequence|length) .{0,40}exceed|physical batch|"
    r"(less|fewer) than [0-9]+ tokens"
)
TOO_LONG = re.compile(_TOO_LONG_WORDS, re.IGNORECASE)
TOO_MUCH = re.compile(
    rf"{_TOO_LONG_WORDS}|batch|too many|array|at most|no more than|up to [0-9]|(maximum|max)[ _](\w+[ _]){{0,3}}"
    r"(inputs?|items|number|texts)",
    re.IGNORECASE,
)
_TOO_MUCH_STATUS = ("status 400", "status 413", "status 422", "status 500")


class TooManyTexts(InputError):
    """The endpoint takes fewer texts in a request; `fewer` are to be tried."""

    def __init__(self, message: str, fewer: int) -> None:
        super().__init__(message)
        self.fewer = fewer


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
        return ngram_vectors(texts)


class EncoderEmbedder:
    """A pretrained encoder: a folder, or a name on the hub, which is downloaded on first use."""

    calls = NO_CALLS

    def __init__(self, name: str, encoding: Encoding, bases: Path) -> None:
        self.name = name
        self._encoder = Encoder(encoding, bases)

    @property
    def identity(self) -> str:
        """Of the model's files and how it embeds. Raises InputError if the model cannot be had."""
        return self._encoder.identity

    def embed(self, texts: list[str], advance: Callable[[float], None] | None = None) -> Floats:
        """Unit vectors, float32 (texts, dimensions of the model). Raises InputError if it cannot be loaded."""
        vectors = self._encoder.embed(texts, advance)
        unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return unit


class EndpointEmbedder:
    """A model of the endpoint. Key, address, time-out and caps are those of synthesis; every call is in the ledger."""

    def __init__(self, model: str, endpoint: Endpoint) -> None:
        self.name = f"{API}{model}"
        self._model, self._endpoint = model, endpoint
        self._settings = endpoint.settings.at(endpoint.settings.embeddings)
        self.calls: CallSummary = NO_CALLS

    @property
    def identity(self) -> str:
        """Of the model's name and the address, since another endpoint may have another model of that name."""
        return f"{self.name} at {address(self._settings.base_url)}"

    def embed(self, texts: list[str], advance: Callable[[float], None] | None = None) -> Floats:  # noqa: ARG002
        """Unit vectors, float32 (texts, dimensions of the model). Raises InputError if the endpoint gives none.

        Raises TooManyTexts if the endpoint takes fewer at a time. A single text that is too long for the model is cut,
        as encoders do.
        """
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
                if len(texts) > 1 and refused_for(TOO_MUCH, result):
                    raise TooManyTexts(self._refused(result), len(texts) // 2)
                if len(texts) == 1 and len(texts[0]) > _LEAST_TEXT and refused_for(TOO_LONG, result):
                    texts = [texts[0][: len(texts[0]) // 2]]
                    self._endpoint.say(
                        f"{self.name}: a post is too long for it and is cut to {len(texts[0])} characters"
                    )
                    continue
                if not await retries.wait_to_retry(result):
                    raise InputError(self._refused(result))

    def _refused(self, result: CallResult) -> str:
        said = f", {result.message!r}" if result.message else ""
        return (
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


class CachedEmbedder(EmbeddingCache):
    """Asks another embedder once per text."""

    def __init__(self, inner: "EncoderEmbedder | EndpointEmbedder", path: Path, batch: int | None = None) -> None:
        super().__init__(inner, path, batch)
        self.name, self._asked = inner.name, inner

    def embed(self, texts: list[str], advance: Callable[[float], None] | None = None) -> Floats:
        """As the cache does, in the batches that the other embedder takes."""
        while True:
            try:
                return super().embed(texts, advance)
            except TooManyTexts as refused:  # what was embedded before is kept
                self._batch = refused.fewer

    @property
    def calls(self) -> CallSummary:
        """Those of the other embedder."""
        return self._asked.calls


def encoding_of(name: str) -> Encoding | None:
    """How the encoder of a setting embeds: as its folder says, in float32, which is the same everywhere.

    None for a setting that names no encoder.
    """
    if name == NGRAMS or name.startswith(API):
        return None
    return Encoding(ModelSource(name, "main", f"curation.embedder {name!r}"), precision="float32")


def cache_name(name: str) -> str | None:
    """The file, in the folder of embeddings, with the vectors of a setting; None where none are kept.

    Endpoints that name a model alike share its file, not its vectors: so which files are in use does not depend on the
    environment, and those of one endpoint are there again when it comes back.
    """
    if encoding := encoding_of(name):
        return cache_file(encoding)
    return None if name == NGRAMS else f"{fingerprint(name)[:16]}.sqlite"


def make_embedder(name: str, cache: Path, bases: Path, endpoint: Endpoint | None = None) -> Embedder:
    """The embedder of a setting; those that start with `api:` need an `endpoint`. n-grams are faster than a cache.

    `cache` is the folder of embeddings, `bases` that of base models.
    """
    file = cache_name(name)
    if file is None:
        return NgramEmbedder()
    if encoding := encoding_of(name):
        return CachedEmbedder(EncoderEmbedder(name, encoding, bases), cache / file, ENCODED_TOGETHER)
    if endpoint is None:
        raise InputError(f"curation.embedder {name!r} needs an endpoint to ask: use {NGRAMS} here.")
    return CachedEmbedder(EndpointEmbedder(name.removeprefix(API), endpoint), cache / file, TEXTS_PER_CALL)


def refused_for(words: "re.Pattern[str]", result: CallResult) -> bool:
    """Whether a call was refused with such words about the number or length of its texts."""
    if result.no_model or result.no_credit or result.failure not in _TOO_MUCH_STATUS:
        return False
    return result.failure == "status 413" or words.search(result.message) is not None


def _parse(body: str, wanted: int) -> tuple[Floats | None, int | None]:
    """Vectors and tokens, each None if the answer has none. Never raises, because the answer may have been paid for."""
    try:
        content = json.loads(body)
        data = content["data"]
        rows = sorted(data, key=lambda row: int(row["index"])) if "index" in data[0] else data
        vectors = np.array([_vector(row["embedding"]) for row in rows], dtype=np.float32)
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
        return None, None
    usage = content.get("usage")
    tokens = token_count(usage, "prompt_tokens", "total_tokens") if isinstance(usage, dict) else None
    whole = vectors.ndim == 2 and len(vectors) == wanted and bool(np.isfinite(vectors).all())
    return (vectors if whole else None), tokens


def _vector(given: Any) -> Any:
    """Numbers, or float32 in base64, as some servers answer whatever was asked for."""
    return np.frombuffer(base64.b64decode(given, validate=True), "<f4") if isinstance(given, str) else given
