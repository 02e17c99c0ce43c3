"""A request for posts: everything that goes out, what it is for, and the key under which it is never paid for twice."""

from functools import cached_property
from typing import Literal

from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.storage.record import Record

Strategy = Literal["direct", "rewrite", "contrast", "translate", "judge"]
STRATEGIES: tuple[Strategy, ...] = ("direct", "rewrite", "contrast")  # of making posts; the others look at them again


class Message(Record):
    """One chat message."""

    role: Literal["system", "user"]
    content: str


class Request(Record):
    """One call of the endpoint.

    `shown` are the ids of the real training posts in its messages; all are of one `fold`, which its posts inherit.
    `labels` are those of the posts that are asked for, in their order.
    """

    language: str
    strategy: Strategy
    number: int  # of the language's plan; two requests alike in all else differ in it
    fold: int
    shown: tuple[str, ...]
    labels: tuple[int, ...]
    messages: tuple[Message, ...]
    address: str  # of the endpoint: what one answered uselessly may be asked of another
    model: str
    temperature: float | None  # None: the endpoint's own
    max_tokens: int
    max_tokens_name: str = "max_tokens"  # as the model's endpoint calls it

    @cached_property
    def key(self) -> str:
        """sha256 of all of it: the same plan asks the same requests of the same model at the same address."""
        return fingerprint(self.model_dump(mode="json"))


class Reply(Record):
    """What came back: the texts in the order of the request's labels, or none and the reason."""

    key: str
    texts: tuple[str, ...]
    outcome: str  # ok, refused, truncated, malformed
    finish: str  # the endpoint's finish_reason
    prompt_tokens: int
    completion_tokens: int
    dollars: float
    counted: bool  # by the endpoint; otherwise the tokens are the worst case, because it did not say
