"""Settings of synthetic posts: how many are made, of what and for how much, and which are kept, also by language.

What does not belong here: the endpoint's key, which comes from the environment.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from polar_pipeline.settings.base import Settings
from polar_pipeline.task.languages import language


def _sums_to_one(value: tuple[float, float, float]) -> tuple[float, float, float]:
    if min(value) < 0 or abs(sum(value) - 1) > 1e-6:
        raise ValueError(
            "the three shares (direct, rewrite, contrast) should be at least 0 and sum to 1, "
            f"these sum to {sum(value):g}: correct them"
        )
    return value


def _registered(code: str) -> str:
    language(code)
    return code


Code = Annotated[str, AfterValidator(_registered)]
Shares = Annotated[tuple[float, float, float], AfterValidator(_sums_to_one)]


class LanguagePlan(Settings):
    """What one language's plan has instead of the profile's; what is left out is the profile's."""

    posts: int | None = Field(default=None, ge=1, le=100_000)
    shares: Shares | None = None
    positive_share: float | None = Field(default=None, gt=0, lt=1)


class SynthesisSettings(Settings):
    """Which synthetic posts are made, of what, and for how much."""

    source: Literal["none", "offline", "endpoint"] = "none"
    posts: int = Field(default=1000, ge=1, le=100_000)
    shares: Shares = (0.5, 0.3, 0.2)
    positive_share: float = Field(default=0.5, gt=0, lt=1)
    posts_per_request: int = Field(default=6, ge=1, le=50)
    examples: int = Field(default=4, ge=1, le=20)
    model: str = Field(default="gpt-4o-mini", min_length=1)
    base_url: str | None = None
    temperature: float | None = Field(default=1.0, ge=0, le=2)
    max_tokens: int = Field(default=4000, ge=16)
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    batch: bool = False
    concurrency: int = Field(default=32, ge=1, le=1024)
    timeout: float = Field(default=120.0, gt=0)
    attempts: int = Field(default=6, ge=1, le=20)
    price_prompt: float = Field(default=0.15, ge=0)
    price_completion: float = Field(default=0.60, ge=0)
    price_batch: float = Field(default=0.5, ge=0, le=1)
    price_embedding: float = Field(default=0.02, ge=0)
    max_dollars: float | None = Field(default=10.0, ge=0)
    max_requests: int | None = Field(default=None, ge=0)
    per_language: dict[Code, LanguagePlan] = Field(default={})

    def of(self, code: str) -> "SynthesisSettings":
        """The settings of one language."""
        own = self.per_language.get(code, LanguagePlan()).model_dump(exclude_none=True)
        return self.model_copy(update={**own, "per_language": {}})

    def content_settings(self) -> dict[str, Any]:
        """The settings of one language (see `of`) that change which posts are made, as JSON.

        Caps, prices, batches, speed and retries change no post, although a cap may end a run early.
        """
        names = {
            "none": {"source"},
            "offline": {"source", "posts", "positive_share"},
            "endpoint": {
                "source", "posts", "shares", "positive_share", "posts_per_request", "examples", "model", "base_url",
                "temperature", "max_tokens", "max_tokens_name",
            },
        }  # fmt: skip
        return self.model_dump(mode="json", include=names[self.source])


class LanguageShare(Settings):
    """One language's share in place of the profile's."""

    share: float = Field(ge=0, le=0.9)


class CurationSettings(Settings):
    """Which synthetic posts are kept."""

    near_duplicate: float = Field(default=0.9, gt=0, le=1)
    embedder: str = "ngrams"
    share: float = Field(default=0.3, ge=0, le=0.9)
    per_language: dict[Code, LanguageShare] = Field(default={})
    gate: bool = True
    round_trip: float | None = Field(default=None, gt=0, le=1)
    judge: bool = False
    temperature: float | None = Field(default=0.0, ge=0, le=2)
    contradictions: Literal["keep", "drop"] = "keep"

    @property
    def asks_endpoint(self) -> bool:
        """Whether curation costs requests: translation, the judge, or an endpoint's embeddings."""
        return self.round_trip is not None or self.judge or self.embedder.startswith("api:")

    def of(self, code: str) -> "CurationSettings":
        """The settings of one language."""
        own = self.per_language.get(code)
        return self.model_copy(update={"share": own.share if own else self.share, "per_language": {}})

    def content_settings(self) -> dict[str, Any]:
        """The settings of one language (see `of`) that change which posts are kept, as JSON."""
        unused = set() if self.judge or self.round_trip is not None else {"temperature"}
        return self.model_dump(mode="json", exclude={"per_language", *unused})
