"""Trouble: when requests end alike and none succeeds, the one sentence that says why and what to do, soon rather than at the end.

What does not belong here: a failure among successes; that is counted, and the rest goes on.
"""

from polar_pipeline.errors import InputError
from polar_pipeline.synthesis.answers import USELESS
from polar_pipeline.synthesis.client import BROKEN, TOO_LATE, UNREACHED
from polar_pipeline.task.synthesis import SynthesisSettings

_FREE, _PAID = 5, 20  # requests that ended alike before nothing more is sent; answers differ by what was asked
_WORDS = {"refused": "refuses", "malformed": "answers without the JSON that was asked for", "truncated": "cuts off"}


class Trouble:
    """Counts how requests ended, as long as none succeeded."""

    def __init__(self, settings: SynthesisSettings, address: str, total: int, succeeded: bool) -> None:
        self._settings, self._address, self._total = settings, address, total
        self._seen: dict[str, int] = {}
        self.succeeded = succeeded  # whether any request ever did

    def note(self, outcome: str, message: str = "") -> None:
        """How a request ended. Raises InputError when so many ended alike that the others would too."""
        self.succeeded = self.succeeded or outcome == "ok"
        self._seen[outcome] = self._seen.get(outcome, 0) + 1
        if not self.succeeded and len(self._seen) == 1 and self._seen[outcome] >= self._enough(outcome):
            raise InputError(sentence(outcome, message, self._address, self._settings))

    def _enough(self, outcome: str) -> int:
        if outcome == UNREACHED:
            return 1  # after all its attempts
        if outcome.startswith("status"):
            return min(_FREE, self._total)
        return _PAID if outcome in USELESS else _FREE


def sentence(outcome: str, message: str, address: str, settings: SynthesisSettings) -> str:
    """What is the matter when everything ends like this, and the remedy. `message` are the endpoint's words, without the key."""
    said = f", {message!r}" if message else ""
    if outcome == UNREACHED:
        return f"no connection to {address} ({message}): start the endpoint, or correct synthesis.base_url (or OPENAI_BASE_URL)."
    if outcome == "status 403":
        return f"the endpoint refused the key ({outcome}{said}): set OPENAI_API_KEY to one that may use {settings.model!r}."
    if outcome == "status 404":
        return (
            f"the endpoint at {address} has no model {settings.model!r}, or no chat completions ({outcome}{said}): "
            "correct synthesis.model or base_url."
        )
    if outcome == "status 429" or outcome.startswith("status 5"):
        return (
            f"the endpoint at {address} takes no request ({outcome}{said}): run again later, what was answered is kept."
        )
    if outcome.startswith("status"):
        return f"the endpoint at {address} takes no such request ({outcome}{said}): correct what it names in synthesis."
    if outcome in (TOO_LATE, BROKEN):
        return f"{outcome} from {address}: raise synthesis.timeout, or lower synthesis.concurrency."
    return (
        f"the endpoint at {address} {_WORDS.get(outcome, outcome)} every request: change synthesis.model or base_url; "
        "the same model is asked again once the ledger's file is moved away."
    )


def no_money(address: str, status: str, message: str) -> str:
    """The account behind the key is empty."""
    return f"the account at {address} has no money left ({status}, {message!r}): fill it and run again, what was answered is kept"


def no_batches(address: str, status: str) -> str:
    """The endpoint answers single requests only."""
    return f"the endpoint at {address} has no batches ({status}): set synthesis.batch to false."


def dearer(address: str) -> str:
    """A reply cost more than it can have."""
    return (
        f"the endpoint at {address} billed more tokens than the request can have: "
        "look at its prices; another run sets as much more aside, so that the cap holds"
    )
