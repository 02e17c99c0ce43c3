"""Embeddings of an OpenAI-style endpoint, reserved and settled in the ledger like every other call, at the pace of all.

What does not belong here: which texts are new (the cache knows), and how many are asked for at a time.
"""

import asyncio
import json

import numpy as np

from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.synthesis.answers import NO_CALLS, Calls
from polar_pipeline.synthesis.client import Attempt, Client
from polar_pipeline.synthesis.endpoint import Endpoint, address
from polar_pipeline.synthesis.ledger import Budget, Ledger
from polar_pipeline.synthesis.pace import Pace
from polar_pipeline.synthesis.patience import Patience
from polar_pipeline.synthesis.prices import embedding_dollars

API = "api:"
_UNREADABLE = "malformed"


class EndpointEmbedder:
    """The name of the endpoint's model after `api:`. Key, address, time-out and caps are those of synthesis."""

    def __init__(self, name: str, endpoint: Endpoint) -> None:
        self.name = f"{API}{name}"
        self._model, self._endpoint, self._settings = name, endpoint, endpoint.settings
        self.calls: Calls = NO_CALLS  # for all texts that were embedded so far

    def embed(self, texts: list[str]) -> Floats:
        """Unit vectors, float32 (texts, dimensions of the model). Raises InputError when the endpoint gives none."""
        budget = Budget(self._settings.max_dollars, self._settings.max_requests)
        with Ledger(self._endpoint.ledgers, self._endpoint.language.code, budget) as ledger:
            asked = [text or " " for text in texts]
            try:
                vectors = asyncio.run(self._asked(asked, ledger))
            finally:
                self.calls = self.calls.plus(ledger.answers.calls({self._key(asked)}))
        unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return unit

    def _key(self, texts: list[str]) -> str:
        return fingerprint([address(self._settings.base_url), self._model, texts])

    async def _asked(self, texts: list[str], ledger: Ledger) -> Floats:
        """Calls until there are vectors, as many as the settings allow; each is in the ledger before it goes."""
        pace, patience = Pace(self._endpoint.ledgers / "pace.json"), Patience(self._settings)
        client = Client(self._settings, pace)
        try:
            while True:
                await asyncio.sleep(pace.wait())
                attempt, vectors = await self._once(texts, client, ledger)
                if vectors is not None:
                    return vectors
                if not await patience.lasts(attempt):
                    break
        finally:
            await client.close()
        failure = attempt.failure or _UNREADABLE
        said = f", {attempt.message!r}" if attempt.message else ""
        raise InputError(
            f"curation.embedder {self.name!r}: the endpoint gave no embeddings ({failure}{said}, "
            f"{address(self._settings.base_url)}): correct the model's name, the key or the address, or use ngrams."
        )

    async def _once(self, texts: list[str], client: Client, ledger: Ledger) -> tuple[Attempt, Floats | None]:
        worst = embedding_dollars(sum(len(text.encode("utf-8")) for text in texts), self._settings)
        reservation = ledger.reserve(self._key(texts), worst)
        if reservation is None:
            raise InputError(f"{ledger.full(worst)} leaves no room for curation.embedder {self.name!r}: raise it.")
        try:
            attempt = await client.embed(self._model, texts)
        except InputError:
            ledger.release(reservation, "status 401", free=True)
            raise
        if attempt.body is None:
            cost = ledger.held(reservation) if attempt.charged else 0.0
            ledger.release(reservation, attempt.failure, cost, attempt.free)
            return attempt, None
        vectors, tokens = _read(attempt.body, len(texts))
        price = worst if tokens is None else embedding_dollars(tokens, self._settings)
        ledger.release(reservation, _UNREADABLE if vectors is None else "embedded", price)
        return attempt, vectors


def _read(body: str, wanted: int) -> tuple[Floats | None, int | None]:
    """Vectors and tokens, either None where the answer has none; never raises, because it may have been paid for."""
    try:
        content = json.loads(body)
        rows = sorted(content["data"], key=lambda row: int(row["index"]))
        vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None, None
    usage = content.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    counted = tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens <= 10**9 else None
    whole = vectors.ndim == 2 and len(vectors) == wanted and bool(np.isfinite(vectors).all())
    return (vectors if whole else None), counted
