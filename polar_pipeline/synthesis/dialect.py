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

from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.storage.record import Record
from polar_pipeline.synthesis.formats import Request, response_format

FILE = "endpoints.json"  # beside the ledger
AnswerFormat = Literal["json_schema", "json_schema_unsized", "json_object", "text"]
FORMATS: tuple[AnswerFormat, ...] = ("json_schema", "json_schema_unsized", "json_object", "text")

_FORMAT_WORDS = re.compile(
    r"response_?format|json_?\s?schema|json_?\s?object|\bschema\b|structured|grammar|guided|min_?items|max_?items|"
    r"additional_?properties|\bstrict\b|json mode",
    re.IGNORECASE,
)
_SIZE_WORDS = re.compile(r"min_?items|max_?items|\bunsupported keyword|\bnot permitted\b|\bkeyword", re.IGNORECASE)
_LIMIT_WORDS = re.compile(r"max_(completion_)?tokens", re.IGNORECASE)
_CONTEXT_WORDS = re.compile(
    r"context[_ ](length|size|window)|maximum context|max_model_len|too many tokens|n_ctx|prompt is too long|"
    r"exceeds? the (available|maximum) (context|number of tokens)|reduce the length",
    re.IGNORECASE,
)
_FEWEST_TOKENS = 128
# failures whose words may be about how a request was written
TELLING = ("status 400", "status 404", "status 405", "status 415", "status 422", "status 500", "status 501")


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


def adapted(dialect: Dialect, failure: str, message: str, request: Request) -> Change | None:
    """The dialect to try after a refusal, by what its words name; None where they name no part of a dialect."""
    if failure in ("status 404", "status 405") and dialect.path and request.model.casefold() not in message.casefold():
        return Change(dialect.model_copy(update={"path": ""}), f"it has nothing at {dialect.path}")
    if failure not in TELLING or failure in ("status 404", "status 405"):
        return None
    tokens = _context(dialect, message, request) or _limit(dialect, message)
    return tokens or _temperature(dialect, message, request) or _answers(dialect, message)


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


def _answers(dialect: Dialect, message: str) -> Change | None:
    place = FORMATS.index(dialect.answers)
    if not _FORMAT_WORDS.search(message) or place + 1 == len(FORMATS):
        return None
    sized = dialect.answers == "json_schema" and _SIZE_WORDS.search(message)
    # only a complaint about the sizes is worth a schema without them
    following = place + 1 if sized or dialect.answers != "json_schema" else place + 2
    if re.search(r"json_object", message) and re.search(r"must be|only|one of|supported", message) and following < 2:
        following = 2
    chosen = FORMATS[following]
    return Change(dialect.model_copy(update={"answers": chosen}), f"it takes no {dialect.answers}")


def _limit(dialect: Dialect, message: str) -> Change | None:
    if not _LIMIT_WORDS.search(message):
        return None
    other = "max_completion_tokens" if dialect.limit_name == "max_tokens" else "max_tokens"
    wrong = re.search(rf"\b{dialect.limit_name}\b", message, re.IGNORECASE)
    value = re.search(r"too large|at most|less than|maximum|exceed|<=", message, re.IGNORECASE)
    if not wrong or (value and not re.search(r"unsupported|unrecognized|unknown|instead|not supported", message, re.I)):
        return None
    return Change(dialect.model_copy(update={"limit_name": other}), f"it takes no {dialect.limit_name}")


def _temperature(dialect: Dialect, message: str, request: Request) -> Change | None:
    if not dialect.temperature or request.temperature is None or "temperature" not in message.casefold():
        return None
    return Change(dialect.model_copy(update={"temperature": False}), "it takes no such temperature")


def _context(dialect: Dialect, message: str, request: Request) -> Change | None:
    """Half as many tokens for the answer where its context is too short, as long as that leaves any."""
    large = _LIMIT_WORDS.search(message) and re.search(r"too large|at most|less than|exceed|<=", message, re.IGNORECASE)
    limit = min(request.max_tokens, dialect.most_tokens or request.max_tokens)
    if not (_CONTEXT_WORDS.search(message) or large) or limit // 2 < _FEWEST_TOKENS:
        return None
    return Change(dialect.model_copy(update={"most_tokens": limit // 2}), f"{limit} tokens are too many for it")
