"""What is sent to the endpoint and what comes back: requests, replies, and their price."""

import json
from functools import cached_property
from typing import Any, Literal, NamedTuple

from polar_pipeline.endpoint.answers import OK, Read, read_texts
from polar_pipeline.endpoint.completion import ModelOutput, model_output, tokens_in
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.storage.record import Record

Strategy = Literal["direct", "rewrite", "contrast", "translate", "judge"]
STRATEGIES: tuple[Strategy, ...] = ("direct", "rewrite", "contrast")  # those that make posts; the others verify them

_MESSAGE_OVERHEAD = 16  # tokens of a message's frame (role, separators): a handful in every published chat format
_FIELDS = {"translate": "translation", "judge": "probability"}  # of an object, where it holds the answer
_MOST_UNREAD = 20_000  # characters of an answer that are kept


class Message(Record):
    """One chat message."""

    role: Literal["system", "user"]
    content: str


class Request(Record):
    """One chat completion to ask for. Its fields make its key, so a changed field is a new, paid request.

    `shown` are the ids of the real training posts in its messages; all are of one `fold`, which its posts inherit.
    `labels` are those of the posts wanted, in their order.
    """

    language: str
    strategy: Strategy
    number: int  # position in the language's plan; two requests that are otherwise equal differ in it
    fold: int
    shown: tuple[str, ...]
    labels: tuple[int, ...]
    messages: tuple[Message, ...]
    address: str  # of the endpoint
    model: str
    temperature: float | None  # None: the endpoint's default
    max_tokens: int
    max_tokens_name: str = "max_tokens"  # the parameter's name at this endpoint
    asked_type: str = ""  # of the positive posts wanted, as the messages say it; "" for none in particular
    label_names: tuple[str, str] = ("0", "1")  # the words for labels 0 and 1 in its messages

    @cached_property
    def key(self) -> str:
        """sha256 of all that is sent: the same plan asks the same requests of the same model at the same address."""
        # the messages contain what is left out
        return fingerprint(self.model_dump(mode="json", exclude={"asked_type", "label_names"}))


class Reply(Record):
    """A paid answer: the texts in the order of the request's labels, or none and the reason in `outcome`."""

    key: str
    texts: tuple[str | None, ...]  # None: no text in the answer is surely the one with this label
    outcome: str  # ok, refused, truncated, malformed
    finish: str  # the endpoint's finish_reason
    prompt_tokens: int
    completion_tokens: int
    dollars: float
    counted: bool  # tokens as the endpoint counted them; otherwise the worst case
    unread: str = ""  # the beginning of an answer that was paid for and could not be read


def response_format(size: int, sized: bool = True) -> dict[str, Any]:
    """The JSON schema of an answer: as many texts as labels, said in the schema where that is taken (`sized`)."""
    posts: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
    posts |= {"minItems": size, "maxItems": size} if sized else {}
    schema = {"type": "object", "properties": {"posts": posts}, "required": ["posts"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "posts", "strict": True, "schema": schema}}


def worst_tokens(request: Request) -> tuple[int, int]:
    """Upper bounds of prompt and completion tokens: no tokenizer makes more tokens than bytes.

    The schema counts too, because endpoints put it into the prompt or charge for it as if they did.
    """
    prompt = sum(len(message.content.encode("utf-8")) + _MESSAGE_OVERHEAD for message in request.messages)
    return prompt + len(json.dumps(response_format(len(request.labels)))) + _MESSAGE_OVERHEAD, request.max_tokens


def dollars(prompt_tokens: int, completion_tokens: int, settings: SynthesisSettings) -> float:
    """Price in US dollars, from the profile's prices per million tokens; a batch costs `price_batch` of them."""
    share = settings.price_batch if settings.batch else 1.0
    return share * (prompt_tokens * settings.price_prompt + completion_tokens * settings.price_completion) / 1_000_000


def worst_dollars(request: Request, settings: SynthesisSettings) -> float:
    """The most that one call of the request can cost, in US dollars."""
    return dollars(*worst_tokens(request), settings)


def embedding_dollars(tokens: int, settings: SynthesisSettings) -> float:
    """Price of embedding so many tokens, in US dollars."""
    return tokens * settings.price_embedding / 1_000_000


def parse_reply(request: Request, body: str, settings: SynthesisSettings) -> Reply:
    """The reply in a response with status 200. Never raises: what cannot be read is `malformed`."""
    said = model_output(body)
    tokens = tokens_in(said.whole)
    prompt, completion = tokens or worst_tokens(request)
    found = _read(request, said)
    return Reply(
        key=request.key,
        texts=found.texts,
        outcome=found.outcome,
        finish=said.finish,
        prompt_tokens=prompt,
        completion_tokens=completion,
        dollars=dollars(prompt, completion, settings),
        counted=tokens is not None,
        unread="" if found.outcome == OK else body[:_MOST_UNREAD].encode("utf-8", "replace").decode(),
    )


def read_again(request: Request, reply: Reply) -> Reply:
    """A reply whose answer could not be read, as it is read today; its price stays."""
    if reply.outcome == OK or not reply.unread:
        return reply
    found = _read(request, model_output(reply.unread))
    unread = "" if found.outcome == OK else reply.unread
    return reply.model_copy(update={"texts": found.texts, "outcome": found.outcome, "unread": unread})


def _read(request: Request, said: ModelOutput) -> Read:
    # posts that are made directly stand for themselves; rewritten ones and pairs belong to others
    shiftable, field = request.strategy == "direct", _FIELDS.get(request.strategy, "text")
    return read_texts(said, request.labels, shiftable, field, request.label_names)


# how calls fail that got no status of an API
NO_CONNECTION, TIMED_OUT, BROKEN = "no connection", "no answer in time", "the connection broke"
PAGE, REDIRECT = "a web page", "a redirect"


class CallResult(NamedTuple):
    """How one call ended: with a reply (or another body), or with a failure."""

    reply: Reply | None = None
    failure: str = ""  # one of the constants above, or `status 429`
    message: str = ""  # the endpoint's own words in one short line, without the key
    details: str = ""  # all that the refusal says, its codes too
    retryable: bool = True
    wait: float = 0.0  # seconds that the endpoint asked for
    charged: bool = False  # the endpoint may have worked on it, and so may charge for it
    no_credit: bool = False  # the account behind the key has no money left
    no_model: bool = False  # the endpoint does not have the model
    inside: bool = False  # the failure stands in an answer with status 200
    tokens: tuple[int, int] = (0, 0)  # prompt and completion tokens that such an answer charges for all the same
    body: str | None = None  # of an answer with status 200
    sent: Any = None  # the `Dialect` that the request was written in

    @property
    def free(self) -> bool:
        """Whether it was refused before any work: such a call counts neither as money nor as a request."""
        refused = self.failure in (NO_CONNECTION, PAGE, REDIRECT) or self.failure.startswith("status 4") or self.inside
        return refused and not any(self.tokens)
