"""How calls of an endpoint fail: which failures may be retried, which cost money, and what the user should do."""

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.answers import json_or_none
from polar_pipeline.synthesis.connection import Key
from polar_pipeline.synthesis.formats import BROKEN, NO_CONNECTION, TIMED_OUT, CallResult
from polar_pipeline.synthesis.rate_limit import RateLimiter

if TYPE_CHECKING:
    import openai

_PAGE = re.compile(r"\ufeff?\s*<(!doctype|html|head|\?xml)", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_SHORTEST_SECRET = 8  # characters of a key that is looked for everywhere
_NO_KEY = {"invalid_api_key", "invalid_authentication", "authentication_error", "unauthenticated", "401"}
_CLOSED = {"account_deactivated", "account_suspended", "access_terminated", "organization_restricted"}
_CLOSED |= {"unsupported_country_region_territory", "account_policy_violation"}
_NO_CREDIT = {"insufficient_quota", "billing_not_active", "billing_hard_limit_reached", "insufficient_credits"}
_NO_CREDIT |= {"insufficient_balance", "payment_required", "402"}
_NO_CREDIT_WORDS = ("insufficient balance", "insufficient credit", "billing is not active", "your current quota")
_NO_MODEL = {"model_not_found", "deploymentnotfound", "model_not_available"}
_MISSING_MODEL = re.compile(
    r"[\W_]*((the|error|requested|specified) *:? *){0,4}models?\b.{0,80}(does not exist|not found|not available)|"
    r"[\W_]*(no such|unknown|invalid) model"
)
# codes of errors in answers with status 200 that stand for a status of HTTP
_STATUS_OF_CODES = {
    **dict.fromkeys(("rate_limit_exceeded", "rate_limit_error", "too_many_requests", "429"), 429),
    **dict.fromkeys(("invalid_request_error", "context_length_exceeded", "content_filter", "bad_request"), 400),
    **dict.fromkeys(_NO_KEY, 401),
    **dict.fromkeys(_NO_CREDIT, 402),
    **dict.fromkeys(_NO_MODEL, 404),
}
USELESS = ("refused", "malformed", "truncated")  # outcomes of replies that are paid for and bring no posts

# exceptions of httpx by name, because the SDK has changed the package that they come from
_NEVER_SENT = {"ConnectError", "ConnectTimeout", "UnsupportedProtocol", "LocalProtocolError", "PoolTimeout"}
PAGE = "a web page"
_PERMANENT = (NO_CONNECTION, PAGE, "status 403", "status 404")  # address, permission or model are wrong for all
_MAX_FREE_FAILURES, _MAX_PAID_FAILURES = 5, 20  # without any success, before a run gives up; paid answers vary more
_VERBS = {
    "refused": "refuses",
    "malformed": "answers without the JSON that response_format asks for to",
    "truncated": "cuts off",
}


def classify_error(error: "openai.APIError", limiter: RateLimiter, key: Key) -> CallResult:
    """What an error of the SDK means. Raises InputError for what every further call would meet too; see `classify`."""
    import openai

    if not isinstance(error, openai.APIStatusError):
        if type(error.__cause__).__name__ in _NEVER_SENT:
            return CallResult(failure=NO_CONNECTION, message=without_key(str(error.__cause__), key))
        timed_out = isinstance(error, openai.APITimeoutError)
        return CallResult(failure=TIMED_OUT if timed_out else BROKEN, charged=True)
    response = error.response
    wait = limiter.update(response.headers, refused=True)
    return classify(error.status_code, error.body or response.text, wait, key)


def error_inside(body: str, key: Key) -> CallResult | None:
    """The error that an answer with status 200 holds in place of a message, or None. It costs nothing.

    Raises InputError as `classify`.
    """
    if _PAGE.match(body):
        return CallResult(failure=PAGE, message=f"a web page{_title(body)}", retryable=False, inside=True)
    whole = json_or_none(body)
    if not isinstance(whole, dict):
        return None
    choices = whole.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    error = whole.get("error") if not first.get("message") else None
    error = error or (first.get("error") if not _says_something(first) else None)
    if not error:
        return None
    code = error.get("code") or error.get("status") if isinstance(error, dict) else None
    number = int(str(code)) if re.fullmatch(r"[0-9]{3}", str(code)) else 0
    status = number if 400 <= number < 600 else _STATUS_OF_CODES.get(str(code), 500)
    return classify(status, error, 0.0, key)._replace(inside=True)


def classify(status: int, error: Any, wait: float, key: Key) -> CallResult:
    """What an error with this status (of HTTP, or told in the answer) and body means.

    Raises InputError for a refused key and a closed account, with which every call would fail.
    """
    error = error.get("error", error) if isinstance(error, dict) else error
    fields = error if isinstance(error, dict) else {}
    codes = {str(fields.get(name)).casefold() for name in ("code", "type", "status")}
    words = fields.get("message") or fields.get("detail") or (error if isinstance(error, str) else json.dumps(error))
    words = f"a web page{_title(words)}" if isinstance(words, str) and _PAGE.match(words) else str(words)
    said, plain = without_key(words, key), words.casefold()
    quoted = f", {said!r}" if said else ""
    if codes & _NO_KEY or status == 401:
        # without the endpoint's own words, which may repeat the key
        raise InputError(f"the endpoint refused the key (status {status}): set {key.variable} to a valid one.")
    if codes & _CLOSED:
        raise InputError(f"the endpoint has closed the account of the key (status {status}{quoted}): ask its operator.")
    poor = status in (402, 403, 429) and any(word in plain for word in _NO_CREDIT_WORDS)
    no_credit = status == 402 or bool(codes & _NO_CREDIT) or poor
    # other statuses have a model that is only busy, and words further on may be those of a post
    no_model = bool(codes & _NO_MODEL) or (status in (400, 404) and bool(_MISSING_MODEL.match(plain)))
    return CallResult(
        failure=f"status {404 if no_model else status}",
        message=said,
        retryable=(status in (408, 409, 425, 429) or status >= 500) and not no_credit and not no_model,
        wait=wait,
        no_credit=no_credit,
        no_model=no_model,
    )


def without_key(text: str, key: Key) -> str:
    """An endpoint's words in one line of at most 200 characters, without the secrets that they may repeat."""
    return " ".join(without_secrets(text, key).split())[:200]


def without_secrets(text: str, key: Key) -> str:
    """A text without the key and the values of headers and query that come from the environment.

    A short key, such as `none` of a local server, is no secret and may be part of words: it goes where a key stands.
    """
    for secret in key.others:
        text = text.replace(secret, "[secret]") if len(secret) >= _SHORTEST_SECRET else text
    if len(key.value) >= _SHORTEST_SECRET:
        return text.replace(key.value, "[key]")
    return re.sub(rf"(?i:(bearer|key)[ :='\"]+){re.escape(key.value)}\b", r"\1 [key]", text) if key.value else text


def _title(page: str) -> str:
    found = _TITLE.search(page)
    return f" ({' '.join(found.group(1).split())[:60]!r})" if found else ""


def _says_something(choice: dict[str, Any]) -> bool:
    message = choice.get("message")
    return isinstance(message, dict) and bool(message.get("content"))


class FailureMonitor:
    """Counts failed requests as long as none has succeeded, and raises when it is clear that the others would fail too.

    A failure among successes is only counted, and the run goes on.
    """

    def __init__(self, settings: SynthesisSettings, address: str, total: int, succeeded: bool) -> None:
        """`total` is the number of requests of this run, `succeeded` whether an earlier run had any success."""
        self._settings, self._address, self._total = settings, address, total
        self._outcomes = Counter[str]()
        self.succeeded = succeeded

    def record(self, outcome: str, message: str = "") -> None:
        """Take in how a request ended. Raises InputError once enough of them failed in a similar way."""
        self.succeeded = self.succeeded or outcome == "ok"
        self._outcomes[outcome] += 1
        similar = {name: count for name, count in self._outcomes.items() if _category(name) == _category(outcome)}
        if not self.succeeded and sum(similar.values()) >= self._limit(outcome):
            most = max(similar, key=lambda name: similar[name])
            raise InputError(advice(most, message if most == outcome else "", self._address, self._settings))

    def _limit(self, outcome: str) -> int:
        if outcome in _PERMANENT:
            return 1
        if _category(outcome) == "paid":
            return _MAX_PAID_FAILURES
        return min(_MAX_FREE_FAILURES, self._total) if _category(outcome) == "status" else _MAX_FREE_FAILURES


def _category(outcome: str) -> str:
    """Failures of one category are counted together: a request may be refused now and unreadable the next time."""
    if outcome in USELESS:
        return "paid"
    return "status" if outcome.startswith("status") else "connection"


def advice(outcome: str, message: str, address: str, settings: SynthesisSettings) -> str:
    """One sentence for a run in which every request ends with `outcome`: what is wrong and what to do.

    `message` are the endpoint's words, without the key.
    """
    said = f", {message!r}" if message else ""
    endpoint = f"the endpoint at {address}"
    if outcome == NO_CONNECTION:
        return (
            f"no connection to {address} ({message}): start the endpoint, or correct synthesis.base_url "
            "(or OPENAI_BASE_URL)."
        )
    if outcome == PAGE:
        return (
            f"{endpoint} answered with {message or PAGE}: its address is not that of an API, correct "
            "synthesis.base_url (or OPENAI_BASE_URL)."
        )
    if outcome == "status 403":
        return (
            f"the endpoint refused the key ({outcome}{said}): set {settings.key_variable} to one that may use "
            f"{settings.model!r}."
        )
    if outcome == "status 404":
        return (
            f"{endpoint} has no model {settings.model!r}, or no chat completions ({outcome}{said}): "
            "correct synthesis.model or base_url."
        )
    if outcome == "status 429" or outcome.startswith("status 5"):
        return f"{endpoint} takes no request ({outcome}{said}): run again later, what was answered is kept."
    if outcome.startswith("status"):
        return f"{endpoint} takes no such request ({outcome}{said}): correct what it names in synthesis."
    if outcome in (TIMED_OUT, BROKEN):
        return f"{outcome} from {address}: raise synthesis.timeout, or lower synthesis.concurrency."
    return (
        f"{endpoint} {_VERBS.get(outcome, outcome)} every request: change synthesis.model or base_url; "
        "after `polar synth retry` the same model is asked again."
    )


def no_credit_left(address: str, status: str, message: str) -> str:
    """The sentence for an account without money."""
    return (
        f"the account at {address} has no money left ({status}, {message!r}): "
        "fill it and run again, what was answered is kept"
    )


def billed_too_much(address: str) -> str:
    """The sentence for an endpoint that billed more than the upper bound of a request."""
    return (
        f"the endpoint at {address} billed more tokens than the request can have: "
        "look at its prices; another run reserves as much more, so that the cap holds"
    )
