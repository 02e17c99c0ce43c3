"""What a request costs: an upper bound before it is sent, the exact figure once the endpoint says how many tokens it was."""

import json
from typing import Any

from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.request import Request

_MILLION = 1_000_000
_OVERHEAD = 16  # tokens of a message's frame: role, separators; a handful in every published chat format


def worst_tokens(request: Request) -> tuple[int, int]:
    """Prompt and completion tokens that the request can cost at the most: no tokenizer makes more tokens than bytes.

    The schema counts too: endpoints put it before the model as text, or charge for it as if they did.
    """
    prompt = sum(len(message.content.encode("utf-8")) + _OVERHEAD for message in request.messages)
    return prompt + len(json.dumps(answer_format(request))) + _OVERHEAD, request.max_tokens


def answer_format(request: Request) -> dict[str, Any]:
    """What the endpoint is told about the form of the answer: JSON with as many texts as labels."""
    size = len(request.labels)
    posts = {"type": "array", "items": {"type": "string"}, "minItems": size, "maxItems": size}
    schema = {"type": "object", "properties": {"posts": posts}, "required": ["posts"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "posts", "strict": True, "schema": schema}}


def likely_tokens(request: Request, bytes_per_token: float) -> tuple[int, int]:
    """What a plan expects: a token per so many bytes, and half of the room for the answer used."""
    prompt, completion = worst_tokens(request)
    return round(prompt / bytes_per_token), completion // 2


def dollars(prompt_tokens: int, completion_tokens: int, settings: SynthesisSettings) -> float:
    """Price of these tokens in US dollars, by the profile's prices per million; those of a batch are a share of them."""
    share = settings.price_batch if settings.batch else 1.0
    return share * (prompt_tokens * settings.price_prompt + completion_tokens * settings.price_completion) / _MILLION


def embedding_dollars(tokens: int, settings: SynthesisSettings) -> float:
    """Price of embedding these tokens; no tokenizer makes more of them than the texts have bytes."""
    return tokens * settings.price_embedding / _MILLION
