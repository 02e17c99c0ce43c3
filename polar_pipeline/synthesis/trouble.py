"""Trouble: when requests end badly and none succeeds, the one sentence that says why and what to do, soon rather than at the end.

What does not belong here: a failure among successes; that is counted, and the rest goes on.
"""

from collections import Counter

from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.answers import USELESS
from polar_pipeline.synthesis.client import BROKEN, TOO_LATE, UNREACHED

_FREE, _PAID = 5, 20  # requests that ended badly before nothing more is sent; answers differ by what was asked
_FINAL = (UNREACHED, "status 403", "status 404")  # no address, no permission, no such model: so for all
_WORDS = {
    "refused": "refuses",
    "malformed": "answers without the JSON that response_format asks for to",
    "truncated": "cuts off",
}


class Trouble:
    """Counts how requests ended, as long as none succeeded."""

    def __init__(self, settings: SynthesisSettings, address: str, total: int, succeeded: bool) -> None:
        self._settings, self._address, self._total = settings, address, total
        self._seen = Counter[str]()
        self.succeeded = succeeded  # whether any request ever did

    def note(self, outcome: str, message: str = "") -> None:
        """How a request ended. Raises InputError when so many ended badly that the others would too."""
        self.succeeded = self.succeeded or outcome == "ok"
        self._seen[outcome] += 1
        alike = {name: count for name, count in self._seen.items() if _kind(name) == _kind(outcome)}
        if not self.succeeded and sum(alike.values()) >= self._enough(outcome):
            most = max(alike, key=lambda name: alike[name])
            raise InputError(sentence(most, message if most == outcome else "", self._address, self._settings))

    def _enough(self, outcome: str) -> int:
        if outcome in _FINAL:
            return 1  # after all its attempts
        if _kind(outcome) == "paid":
            return _PAID
        return min(_FREE, self._total) if _kind(outcome) == "status" else _FREE


def _kind(outcome: str) -> str:
    """Outcomes of one kind speak for each other: what is refused now and unreadable then is useless both times."""
    if outcome in USELESS:
        return "paid"
    return "status" if outcome.startswith("status") else "silence"


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
        "after `polar synth retry` the same model is asked again."
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
