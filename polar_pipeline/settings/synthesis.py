"""Settings of synthetic posts: how many, of what, for how much. The key comes from the environment."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from polar_pipeline.settings.yaml_files import Settings


def _sums_to_one(value: tuple[float, float, float]) -> tuple[float, float, float]:
    if min(value) < 0 or abs(sum(value) - 1) > 1e-6:
        raise ValueError(
            "the three shares (direct, rewrite, contrast) should be at least 0 and sum to 1, "
            f"these sum to {sum(value):g}: correct them"
        )
    return value


def _without_last_slash(url: str) -> str:
    return url.rstrip("/") or url


Url = Annotated[str, AfterValidator(_without_last_slash)]  # with a slash at its end or not is the same address
Shares = Annotated[tuple[float, float, float], AfterValidator(_sums_to_one)]


VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")
# parts of names of headers and queries whose values are secrets
SECRET_NAMES = ("auth", "key", "token", "secret", "cookie", "password", "passwd", "code", "sig")


def _names_secrets(value: dict[str, str]) -> dict[str, str]:
    for name, text in value.items():
        if not VARIABLE.search(text) and any(word in name.lower() for word in SECRET_NAMES):
            raise ValueError(f"{name} seems to hold a key, which no profile should: write $NAME of a variable")
    return value


Headers = Annotated[dict[str, str], AfterValidator(_names_secrets)]


class LanguagePlan(Settings):
    """What one language's plan has instead of the profile's; what is left out is the profile's."""

    posts: int | None = Field(default=None, ge=1, le=100_000)
    """Posts to ask for."""
    shares: Shares | None = None
    """Shares of the three strategies."""
    positive_share: float | None = Field(default=None, gt=0, lt=1)
    """Share of positives to come near to."""
    minority_only: bool | None = None
    """Whether only posts of the rarer label are asked for."""


class OtherEndpoint(Settings):
    """An endpoint with a task of its own; what is left out is as for synthesis."""

    model: str | None = Field(default=None, min_length=1)
    """The model's name there."""
    base_url: str | None = None
    """Its address."""
    key_variable: str | None = Field(default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable that holds its key."""
    headers: Headers | None = None
    """Further HTTP headers, as for synthesis."""
    query: Headers | None = None
    """What follows the address behind ?, as for synthesis."""
    price_prompt: float | None = Field(default=None, ge=0)
    """Dollars per million prompt tokens there."""
    price_completion: float | None = Field(default=None, ge=0)
    """Dollars per million completion tokens there."""

    @model_validator(mode="after")
    def _own_key(self) -> "OtherEndpoint":
        if self.base_url is not None and self.key_variable is None:
            raise ValueError("another base_url needs a key_variable: the key of one endpoint is not sent to another")
        return self


class SynthesisSettings(Settings):
    """Which synthetic posts are made, of what, and for how much."""

    source: Literal["none", "offline", "endpoint", "file"] = "none"
    """Where synthetic posts come from. none: there are none; perturbed copies gain the linear backbone nothing out
    of fold (docs/synthesis.md). offline: perturbed copies of training posts, which need no endpoint and are no new
    posts. endpoint: a model behind an OpenAI-style API writes them. file: they are read from `path`, all of them.
    """
    path: str | None = Field(default=None, min_length=1)
    """With source: file, a file of labelled synthetic posts, or a folder with one per language, in any form that
    `data` has; from the folder of this profile. docs/synthesis.md says which columns it may have.
    """
    posts: int = Field(default=1000, ge=1, le=100_000)
    """Posts to ask for, per language."""
    shares: Shares = (0.5, 0.3, 0.2)
    """Shares of direct generation, rewriting and contrastive pairs, which sum to 1. These are those of the
    runner-up system.
    """
    positive_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of positives that real and synthetic posts together come near to."""
    minority_only: bool = False
    """Whether only posts of the label that the language has fewer of are asked for, whatever positive_share says.
    Pairs, which have both labels, are then none: their share goes to the other two strategies.
    """
    posts_per_request: int = Field(default=6, ge=1, le=50)
    """Posts of one request. Several share the cost of one prompt; with more of them models begin to repeat
    themselves.
    """
    examples: int = Field(default=4, ge=1, le=20)
    """Real training posts of one fold that a request shows as examples of the style."""
    examples_by: Literal["random", "nearest"] = "random"
    """Which those are. random: any. nearest: a post of the label and type that the request is for, and those of both
    labels that are most like it by character n-grams, with their labels.
    """
    model: str = Field(default="gpt-4o-mini", min_length=1)
    """The model's name at the endpoint."""
    base_url: Url | None = None
    """Address of the endpoint, such as http://127.0.0.1:8000/v1. null takes OPENAI_BASE_URL, or OpenAI's own. The
    key comes from key_variable.
    """
    temperature: float | None = Field(default=1.0, ge=0, le=2)
    """Sampling temperature: the endpoint's default. Answers at lower ones repeat themselves. null sends none, for
    models that take none.
    """
    max_tokens: int = Field(default=4000, ge=16)
    """Most tokens of one answer."""
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the endpoint is first thought to call that limit: max_tokens, or max_completion_tokens as newer models of
    OpenAI do. Where it takes the other name only, that is found out.
    """
    answers: Literal["auto", "json_schema", "json_object", "text"] = "auto"
    """The form in which answers are asked for. auto: the strictest that the endpoint takes, found by its refusals and
    remembered. json_schema: strictly as a JSON schema says. json_object: as any JSON. text: by the words of the prompt
    alone.
    """
    headers: Headers = Field(default={})
    """Further HTTP headers, such as {OpenAI-Organization: $ORGANIZATION}; $NAME stands for an environment variable, so
    that no key stands in a profile.
    """
    query: Headers = Field(default={})
    """What follows the address behind ?, such as {api-version: "2024-10-21"} of Azure."""
    key_variable: str = Field(default="OPENAI_API_KEY", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The environment variable that holds the key."""
    judge: OtherEndpoint | None = None
    """Another model, at this or another endpoint, that verifies posts: see curation.judge and curation.round_trip."""
    embeddings: OtherEndpoint | None = None
    """Another endpoint for a curation.embedder that begins with api:, which names its model."""
    batch: bool = False
    """Whether requests go out as batch jobs, which an endpoint that has them answers within a day, for less."""
    concurrency: int = Field(default=32, ge=1, le=1024)
    """Most requests at a time."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds until a request counts as lost."""
    attempts: int = Field(default=6, ge=1, le=20)
    """Calls per request, counting those after a 429, a 5xx or a lost connection."""
    price_prompt: float = Field(default=0.15, ge=0)
    """Dollars per million prompt tokens: the price of gpt-4o-mini in 2026. Prices change."""
    price_completion: float = Field(default=0.60, ge=0)
    """Dollars per million completion tokens, of the same model and year."""
    price_batch: float = Field(default=0.5, ge=0, le=1)
    """Price of a batch over that of other requests: half at OpenAI in 2026."""
    price_embedding: float = Field(default=0.02, ge=0)
    """Dollars per million tokens of an api: embedder (curation.embedder): the price of a small one in 2026."""
    max_dollars: float | None = Field(default=10.0, ge=0)
    """Dollars that are never exceeded, over all languages of a home. null: no cap."""
    max_requests: int | None = Field(default=None, ge=0)
    """Requests that are never exceeded, over all languages of a home. null: no cap."""
    per_language: dict[str, LanguagePlan] = Field(default={})
    """Posts, shares, positive_share and minority_only that a language has instead of those above, such as {khm:
    {posts: 300, shares: [0.7, 0.3, 0.0], positive_share: 0.6}}.
    """

    @model_validator(mode="after")
    def _file_has_a_path(self) -> "SynthesisSettings":
        if self.source == "file" and self.path is None:
            raise ValueError("synthesis.source file needs synthesis.path: name the file or folder of the posts there")
        return self

    def of(self, code: str) -> "SynthesisSettings":
        """The settings of one language."""
        own = self.per_language.get(code, LanguagePlan()).model_dump(exclude_none=True)
        return self.model_copy(update={**own, "per_language": {}})

    def at(self, other: OtherEndpoint | None) -> "SynthesisSettings":
        """The settings for requests to another endpoint."""
        return self if other is None else self.model_copy(update=other.model_dump(exclude_none=True))

    def content_settings(self) -> dict[str, Any]:
        """What changes the posts of a language (see `of`), as JSON: no caps, prices, batches, speed or retries."""
        names = {
            "none": {"source"},
            "offline": {"source", "posts", "positive_share", "minority_only"},
            "file": {"source"},  # its bytes are known by their hash, wherever it lies
            "endpoint": {
                "source", "posts", "shares", "positive_share", "minority_only", "posts_per_request", "examples",
                "examples_by", "model", "base_url", "temperature", "max_tokens", "max_tokens_name",
            },
        }  # fmt: skip
        return self.model_dump(mode="json", include=names[self.source])
