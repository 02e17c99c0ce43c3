"""How calls of an endpoint fail: which failures may be retried, which cost money, and what the user should do."""

import os
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from polar_pipeline.endpoint.completion import completion_in, error_in, json_or_none, tokens_in
from polar_pipeline.endpoint.connection import NOT_FOLLOWED, Key
from polar_pipeline.endpoint.formats import BROKEN, NO_CONNECTION, PAGE, REDIRECT, TIMED_OUT, CallResult
from polar_pipeline.endpoint.rate_limit import RateLimiter
from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings

if TYPE_CHECKING:
    import openai

# without backtracking: comments may be many
_PAGE = re.compile(r"\ufeff?\s*+(?:<!--(?>.*?-->)\s*+)*+<(!doctype|html|head|body|\?xml)", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^<>]{0,200}>(.{0,200}?)</title>", re.IGNORECASE | re.DOTALL)
_LONGEST_HEAD = 4000  # characters of a page in which its title is looked for
_DEEPEST = 20  # levels of an error that are read
_SHORTEST_SECRET, _SHORTEST_OF_LETTERS = 8, 16  # characters of a key that is looked for everywhere
_NO_KEY = {"invalid_api_key", "api_key_invalid", "invalid_authentication", "authentication_error", "unauthenticated"}
_NO_KEY |= {"401"}
_CLOSED = {"account_deactivated", "account_suspended", "access_terminated", "organization_restricted"}
_CLOSED |= {"unsupported_country_region_territory", "account_policy_violation"}
_NO_CREDIT = {"insufficient_quota", "billing_not_active", "billing_hard_limit_reached", "insufficient_credits"}
_NO_CREDIT |= {"insufficient_balance", "payment_required", "budget_exceeded", "arrearage", "402"}
_NO_MODEL = {"model_not_found", "deploymentnotfound", "model_not_available", "model_not_supported", "invalid_model"}
_NO_MODEL |= {"model_decommissioned"}
# words further on may be those of a post, so they are looked for where an endpoint's own sentence begins
_OWN_WORDS = 120
_KEY_WORDS = re.compile(r"(invalid|incorrect|valid|no) api[ _]key|api[ _]key (is )?(not valid|invalid|expired)")
_CREDIT_WORDS = re.compile(
    r"insufficient (balance|credit|funds)|credit balance is too low|billing is not active|budget has been exceeded|"
    r"your current quota|key limit exceeded|usage limits"
)
_MODEL_WORDS = re.compile(
    r"\bmodels?\b.{0,80}(not exist|not found|not available|not supported by|no longer supported|not loaded)|"
    r"\b(no such|unknown|invalid|not a valid) model|\bno models loaded"
)
# codes of errors in answers with status 200 that stand for a status of HTTP
_STATUS_OF_CODES = {
    **dict.fromkeys(("rate_limit_exceeded", "rate_limit_error", "too_many_requests", "429"), 429),
    **dict.fromkeys(("invalid_request_error", "context_length_exceeded", "content_filter", "bad_request"), 400),
    **dict.fromkeys(_NO_KEY, 401),
    **dict.fromkeys(_NO_CREDIT, 402),
    **dict.fromkeys(_NO_MODEL, 404),
}
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
_ECHOES = {"input", "failed_generation", "url", "@type"}  # fields that repeat what was sent, or name documentation
_WORDS = ("message", "detail", "error", "msg", "errors")  # fields of an error that say what is wrong, in this order
USELESS = ("refused", "malformed", "truncated")  # outcomes of replies that are paid for and bring no posts

# exceptions of httpx by name, because the SDK has changed the package that they come from
_NEVER_SENT = {"ConnectError", "ConnectTimeout", "UnsupportedProtocol", "LocalProtocolError", "PoolTimeout"}
_PERMANENT = (
    NO_CONNECTION,
    PAGE,
    REDIRECT,
    "status 403",
    "status 404",
)  # address, permission or model are wrong for all
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
        cause = error.__cause__
        if type(cause).__name__ in _NEVER_SENT:
            proxies = ", ".join(name for name in _PROXIES if os.environ.get(name))
            said = without_key(str(cause), key) + (f"; {proxies} may name a proxy" if proxies else "")
            return CallResult(failure=NO_CONNECTION, message=said)
        if type(cause).__name__ == "TooManyRedirects":
            return CallResult(failure=REDIRECT, message=str(cause), retryable=False)
        timed_out = isinstance(error, openai.APITimeoutError)
        return CallResult(failure=TIMED_OUT if timed_out else BROKEN, charged=True)
    response = error.response
    body = _shallow(json_or_none(response.text) or response.text)
    if 300 <= error.status_code < 400:
        where = response.headers.get(NOT_FOLLOWED, "nowhere")
        return CallResult(failure=REDIRECT, message=f"to {where}, status {error.status_code}", retryable=False)
    wait = limiter.update(response.headers, refused=True, error=body if error.status_code >= 429 else None)
    return classify(error.status_code, body, wait, key)


def error_inside(body: str, key: Key) -> CallResult | None:
    """The error that an answer with status 200 holds in place of a message, or None.

    Raises InputError as `classify`.
    """
    if _PAGE.match(body):
        return CallResult(failure=PAGE, message=f"a web page{_title(body)}", retryable=False, inside=True)
    whole = completion_in(body)
    error = _shallow(error_in(whole))
    if error is None:
        return None
    codes = [code for code in _codes(error) if re.fullmatch(r"[45][0-9]{2}", code) or code in _STATUS_OF_CODES]
    status = 500 if not codes else int(codes[0]) if codes[0].isdigit() else _STATUS_OF_CODES[codes[0]]
    return classify(status, error, 0.0, key)._replace(inside=True, tokens=tokens_in(whole) or (0, 0))


def classify(status: int, error: Any, wait: float, key: Key) -> CallResult:
    """What an error with this status (of HTTP, or named in the answer) and body means.

    Raises InputError for a refused key and a closed account, with which every call would fail.
    """
    codes, words = set(_codes(error)), _words(error) or _leaves(error)
    page = bool(_PAGE.match(words))
    words = f"a web page{_title(words)}" if page else words
    said, plain = without_key(words, key), words.casefold()[:_OWN_WORDS]
    quoted = f", {said!r}" if said else ""
    if codes & _NO_KEY or status == 401 or (status in (400, 403, 500) and _KEY_WORDS.search(plain)):
        # without the endpoint's own words, which may repeat the key
        raise InputError(f"the endpoint refused the key (status {status}): set {key.variable} to a valid one.")
    if codes & _CLOSED:
        raise InputError(f"the endpoint has closed the account of the key (status {status}{quoted}): ask its operator.")
    # Google says the words of an empty account for a minute's quota, and when to come back
    poor = status in (400, 402, 403, 429) and _CREDIT_WORDS.search(plain) and "resource_exhausted" not in codes
    no_credit = status == 402 or bool(codes & _NO_CREDIT) or bool(poor)
    # other statuses have a model that is only busy
    no_model = bool(codes & _NO_MODEL) or (status in (400, 404) and bool(_MODEL_WORDS.search(plain)))
    return CallResult(
        failure=PAGE if page and status == 403 else f"status {404 if no_model else status}",
        message=said,
        details=_leaves(error),
        retryable=(status in (408, 409, 425, 429, 499) or status >= 500) and not no_credit and not no_model,
        wait=wait,
        no_credit=no_credit,
        no_model=no_model,
    )


def _shallow(error: Any, depth: int = _DEEPEST) -> Any:
    """An error without what is deeper in it than any endpoint's words, so that no recursion over it can fail."""
    if isinstance(error, dict):
        return {name: _shallow(one, depth - 1) for name, one in error.items()} if depth else ""
    if isinstance(error, list):
        return [_shallow(one, depth - 1) for one in error] if depth else ""
    return error


def _codes(error: Any) -> list[str]:
    """The codes in an error, however deep, in small letters."""
    if isinstance(error, list):
        return [code for one in error for code in _codes(one)]
    if not isinstance(error, dict):
        return []
    own = [str(error[name]).casefold() for name in ("code", "type", "status", "reason") if error.get(name)]
    return own + [code for one in error.values() if isinstance(one, dict | list) for code in _codes(one)]


def _words(error: Any) -> str:
    """What an error says in a sentence; all of it where it has none."""
    if isinstance(error, dict):
        said = next((found for name in _WORDS if (found := _words(error.get(name)))), "")
        place = error.get("loc")  # as FastAPI names a field
        return f"{'.'.join(map(str, place))}: {said}" if isinstance(place, list) else said
    if isinstance(error, list):
        return "; ".join(filter(None, map(_words, error)))
    return str(error or "")


def _leaves(error: Any) -> str:
    """All that an error says, its codes and the names of parameters too, but nothing that it repeats."""
    if isinstance(error, dict):
        return " ".join(filter(None, (_leaves(one) for name, one in error.items() if name not in _ECHOES)))
    return " ".join(filter(None, map(_leaves, error))) if isinstance(error, list) else str(error or "")


def without_key(text: str, key: Key) -> str:
    """An endpoint's words in one line of at most 200 characters, without the secrets that they may repeat."""
    return " ".join(without_secrets(text, key).split())[:200]


def without_secrets(text: str, key: Key) -> str:
    """A text without the key and the values of headers and query that come from the environment.

    A word, such as `none` or `anything` for a local server, is no secret and may stand in posts: it goes where a key
    stands.
    """
    for secret in key.others:
        text = _replaced(text, secret, "[secret]") if _is_secret(secret) else text
    if _is_secret(key.value):
        return _replaced(text, key.value, "[key]")
    return re.sub(rf"(?i:(bearer|key)[ :='\"]+){re.escape(key.value)}\b", r"\1 [key]", text) if key.value else text


def _is_secret(value: str) -> bool:
    """Whether a value is no word that people write."""
    return len(value) >= (_SHORTEST_SECRET if not value.isalpha() else _SHORTEST_OF_LETTERS)


def _replaced(text: str, secret: str, mark: str) -> str:
    """A text with a mark in place of a secret, also where JSON has escaped its slashes."""
    return text.replace(secret, mark).replace(secret.replace("/", "\\/"), mark)


def _title(page: str) -> str:
    found = _TITLE.search(page[:_LONGEST_HEAD])
    return f" ({' '.join(found.group(1).split())[:60]!r})" if found else ""


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
    if outcome == REDIRECT:
        return (
            f"{endpoint} redirects ({message}), which is not followed: correct synthesis.base_url (or OPENAI_BASE_URL)."
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
