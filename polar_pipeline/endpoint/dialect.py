"""What an endpoint takes: the form of answers, the name of the token limit, a temperature, its path.

OpenAI's API is spoken in dialects. The first request is sent in the fullest one; an error that names a part of it leads
to the next, and what worked is remembered for the endpoint and model.
"""

import json
import re
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from filelock import FileLock
from pydantic import ValidationError

from polar_pipeline.endpoint.formats import Request, response_format
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.storage.record import Record

FILE = "endpoints.json"  # beside the ledger
AnswerFormat = Literal["json_schema", "json_schema_unsized", "json_object", "text"]
FORMATS: tuple[AnswerFormat, ...] = ("json_schema", "json_schema_unsized", "json_object", "text")

_FORMAT_WORDS = re.compile(
    r"response[_ ]?format|json_?\s?schema|json_?\s?object|\bschema\b|structured|grammar|guided|min_?items|max_?items|"
    r"additional_?properties|\bstrict\b|json mode|generate json|json_validate|invalid format|requested parameters",
    re.IGNORECASE,
)
_SIZE_WORDS = re.compile(
    r"min_?items|max_?items|\bunsupported keyword|\bnot permitted\b|\bkeyword|too many states", re.IGNORECASE
)
_LIMIT_WORDS = re.compile(r"max_(completion_|new_)?tokens", re.IGNORECASE)
_UNKNOWN_WORDS = re.compile(
    r"unsupported|unrecognized|unknown|instead|not supported|not permitted|forbidden|deprecated", re.IGNORECASE
)
_CONTEXT_WORDS = re.compile(
    r"context[_ ](length|size|window|the overflows)|maximum context|max_model_len|too many tokens|n_ctx|too long|"
    r"exceeds? the (available|maximum) (context|number of tokens)|reduce (the length|your message)|too large|"
    r"must be reduced",
    re.IGNORECASE,
)
_LARGE_WORDS = re.compile(r"too large|fewer max_tokens|must be reduced", re.IGNORECASE)
_SAYS_NOTHING = re.compile(  # words of a refusal that names nothing
    r"bad|request|unprocessable|entity|content|(internal|server)*(error)?|invalid|validation|failed|type|object|none|null|true|false"
)
_LEAST_SHARE = 4  # the smallest limit that is tried for an answer is that part of the planned one
# failures whose words may be about how a request was written; others only if they say that it is too large
_TELLING = {f"status {status}" for status in (400, 404, 405, 413, 415, 422, 500, 501)}


class Dialect(Record):
    """How requests to an endpoint are written."""

    answers: AnswerFormat = "json_schema"
    limit_name: str = "max_tokens"
    temperature: bool = True
    most_tokens: int | None = None  # of an answer, where its context is shorter than the settings think
    path: str = ""  # that comes behind the address, such as /v1


class Change(NamedTuple):
    """Another dialect, and why in words."""

    dialect: Dialect
    why: str


def first_dialect(settings: SynthesisSettings, address: str, known: Dialect | None) -> Dialect:
    """The dialect to begin with: the one that worked, else the fullest; settings that say it go before both."""
    found = known or Dialect(path=default_path(address), limit_name=settings.max_tokens_name)
    return found if settings.answers == "auto" else found.model_copy(update={"answers": settings.answers})


def default_path(address: str) -> str:
    """What is first put behind an address that has no path: most servers have the API there."""
    return "" if urlsplit(address).path.strip("/") else "/v1"


def body_in(dialect: Dialect, request: Request) -> dict[str, Any]:
    """The JSON body of a chat completion in this dialect."""
    limit = min(request.max_tokens, dialect.most_tokens or request.max_tokens)
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [message.model_dump() for message in request.messages],
        dialect.limit_name: limit,
    }
    if dialect.answers == "json_object":
        body["response_format"] = {"type": "json_object"}
    elif dialect.answers != "text":
        body["response_format"] = response_format(len(request.labels), sized=dialect.answers == "json_schema")
    if dialect.temperature and request.temperature is not None:
        body["temperature"] = request.temperature
    return body


def adapted(dialect: Dialect, failure: str, words: str, request: Request) -> Change | None:
    """The dialect to try after a refusal, by what its words name; None where they name no part of a dialect."""
    if failure in ("status 404", "status 405"):
        return _path(dialect, words, request) or _answers(dialect, words)
    if failure not in _TELLING and not _LARGE_WORDS.search(words):
        return None
    if is_too_large(failure, words):
        return _fewer_tokens(dialect, request)
    return _limit(dialect, words) or _temperature(dialect, words, request) or _answers(dialect, words)


def is_too_large(failure: str, words: str) -> bool:
    """Whether a refusal says that prompt and answer together, or the answer alone, have too many tokens."""
    value = _LIMIT_WORDS.search(words) and not _UNKNOWN_WORDS.search(words)
    words_of_size = failure in _TELLING and (_CONTEXT_WORDS.search(words) or value)
    return failure == "status 413" or bool(words_of_size or _LARGE_WORDS.search(words))


def simpler(dialect: Dialect, failure: str, words: str, request: Request) -> Change | None:
    """The next simpler dialect after a refusal that does not say what is wrong; None where its words say something."""
    if failure not in ("status 400", "status 422", "status 500") or not all(
        map(_SAYS_NOTHING.fullmatch, re.findall(r"[a-z]+", words.lower()))
    ):
        return None
    return _answers(dialect, "response_format") or _temperature(dialect, "temperature", request)


def remembered(folder: Path, address: str, model: str) -> Dialect | None:
    """The dialect that worked with this model at this address, if any."""
    return _read(folder / FILE).get(f"{model} {address}")


def remember(folder: Path, address: str, model: str, dialect: Dialect) -> None:
    """Keep a dialect that worked for later runs."""
    path = folder / FILE
    with FileLock(path.with_suffix(".lock")):
        known = _read(path) | {f"{model} {address}": dialect}
        content = {name: one.model_dump(mode="json") for name, one in sorted(known.items())}
        write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False).encode())


def _read(path: Path) -> dict[str, Dialect]:
    """What the file holds; a damaged one is nothing but the loss of a few refused requests."""
    try:
        return {name: Dialect.model_validate(one) for name, one in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, AttributeError, ValidationError):
        return {}


def _answers(dialect: Dialect, words: str) -> Change | None:
    place = FORMATS.index(dialect.answers)
    if not _FORMAT_WORDS.search(words) or place + 1 == len(FORMATS):
        return None
    sized = dialect.answers == "json_schema" and _SIZE_WORDS.search(words)
    # only a complaint about the sizes is worth a schema without them
    following = place + 1 if sized or dialect.answers != "json_schema" else place + 2
    if "json_object" in words and re.search(r"must be|only|one of|supported|should be", words) and following < 2:
        following = 2
    chosen = FORMATS[following]
    return Change(dialect.model_copy(update={"answers": chosen}), f"it takes no {dialect.answers}")


def _limit(dialect: Dialect, words: str) -> Change | None:
    """The other name of the limit where it does not know the one that was sent."""
    other = "max_completion_tokens" if dialect.limit_name == "max_tokens" else "max_tokens"
    if not re.search(rf"\b{dialect.limit_name}\b", words, re.IGNORECASE) or not _UNKNOWN_WORDS.search(words):
        return None
    return Change(dialect.model_copy(update={"limit_name": other}), f"it takes no {dialect.limit_name}")


def _temperature(dialect: Dialect, words: str, request: Request) -> Change | None:
    if not dialect.temperature or request.temperature is None or "temperature" not in words.casefold():
        return None
    return Change(dialect.model_copy(update={"temperature": False}), "it takes no such temperature")


def _fewer_tokens(dialect: Dialect, request: Request) -> Change | None:
    """Half as many tokens for the answer, as long as a fourth of those planned is left."""
    limit = min(request.max_tokens, dialect.most_tokens or request.max_tokens)
    if limit // 2 < request.max_tokens // _LEAST_SHARE:
        return None
    return Change(dialect.model_copy(update={"most_tokens": limit // 2}), f"{limit} tokens are too many for it")


def _path(dialect: Dialect, words: str, request: Request) -> Change | None:
    """The address without /v1, or with it, where the API may be."""
    if request.model.casefold() in words.casefold():  # it lacks the model
        return None
    if dialect.path:
        return Change(dialect.model_copy(update={"path": ""}), f"it has nothing at {dialect.path}")
    if re.search(r"/v\d[^/]*$|/deployments/", urlsplit(request.address).path):
        return None
    return Change(dialect.model_copy(update={"path": "/v1"}), "it has nothing without /v1")
