"""How calls of an endpoint fail: which failures may be retried, which cost money, and what the user should do."""

import os
from collections import Counter
from typing import TYPE_CHECKING

from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.formats import BROKEN, NO_CONNECTION, TIMED_OUT, CallResult
from polar_pipeline.synthesis.rate_limit import RateLimiter

if TYPE_CHECKING:
    import openai

USELESS = ("refused", "malformed", "truncated")  # outcomes of replies that are paid for and bring no posts

# exceptions of httpx by name, because the SDK has changed the package that they come from
_NEVER_SENT = {"ConnectError", "ConnectTimeout", "UnsupportedProtocol", "LocalProtocolError", "PoolTimeout"}
_PERMANENT = (NO_CONNECTION, "status 403", "status 404")  # address, permission or model are wrong for all requests
_MAX_FREE_FAILURES, _MAX_PAID_FAILURES = 5, 20  # without any success, before a run gives up; paid answers vary more
_VERBS = {
    "refused": "refuses",
    "malformed": "answers without the JSON that response_format asks for to",
    "truncated": "cuts off",
}


def classify_error(error: "openai.APIError", limiter: RateLimiter) -> CallResult:
    """What an error of the SDK means. Raises InputError for a refused key, with which every call would fail."""
    import openai

    if isinstance(error, openai.AuthenticationError):
        # without the endpoint's own words, which may repeat the key
        raise InputError(
            f"the endpoint refused the key (status {error.status_code}): set OPENAI_API_KEY to a valid one."
        )
    if not isinstance(error, openai.APIStatusError):
        if type(error.__cause__).__name__ in _NEVER_SENT:
            return CallResult(failure=NO_CONNECTION, message=without_key(str(error.__cause__)))
        timed_out = isinstance(error, openai.APITimeoutError)
        return CallResult(failure=TIMED_OUT if timed_out else BROKEN, charged=True)
    status = error.status_code
    no_credit = status == 402 or error.code == "insufficient_quota"
    words = error.body.get("message") if isinstance(error.body, dict) else error.body
    return CallResult(
        failure=f"status {status}",
        message=without_key(words if isinstance(words, str) else ""),
        retryable=(status in (408, 409, 429) or status >= 500) and not no_credit,
        wait=limiter.update(error.response.headers, refused=True),
        no_credit=no_credit,
    )


def without_key(text: str) -> str:
    """An endpoint's words in one line of at most 200 characters, without the key that it may repeat."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    return " ".join((text.replace(key, "[key]") if key else text).split())[:200]


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
    if outcome == "status 403":
        model = settings.model
        return f"the endpoint refused the key ({outcome}{said}): set OPENAI_API_KEY to one that may use {model!r}."
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
