"""The endpoint: its address, from the profile or the environment, and its key, from the environment alone.

Both are looked at before anything is sent, so that a slip of the pen is one sentence and not a thousand failures.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.task.languages import Language

_OPENAI = "https://api.openai.com/v1"

Progress = Callable[[str], None]


class Endpoint(NamedTuple):
    """What is needed to ask it for a language: the settings, the ledgers' folder, and whom to tell."""

    language: Language
    settings: SynthesisSettings
    ledgers: Path
    progress: Progress


def address(base_url: str | None) -> str:
    """Where requests go: the profile's address, else OPENAI_BASE_URL, else OpenAI's own. Raises InputError for no address."""
    chosen = (base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI).strip()
    try:
        parts = urlsplit(chosen)
        legal = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        legal = False
    if not legal or not chosen.isprintable() or " " in chosen:
        raise InputError(
            f"{chosen!r} is not the address of an endpoint: write synthesis.base_url (or OPENAI_BASE_URL) "
            "like http://localhost:8000/v1."
        )
    return chosen.rstrip("/")


def key() -> str:
    """The endpoint's key. Raises InputError when there is none, or when no header could carry it."""
    found = os.environ.get("OPENAI_API_KEY", "").strip()  # a newline comes along when it is read from a file
    if not found:
        raise InputError(
            "OPENAI_API_KEY is not set: export the endpoint's key (any word for a local server without one)."
        )
    if not (found.isascii() and found.isprintable()) or " " in found:
        raise InputError("OPENAI_API_KEY holds characters that no key has: copy it anew, without spaces or quotes.")
    return found


def check_endpoint(base_url: str | None) -> None:
    """Raises InputError when address or key are of no use. Sends nothing."""
    address(base_url)
    key()


def without_key(text: str) -> str:
    """What an endpoint said, in one line of at most 200 characters, and never with the key that it may repeat."""
    found = os.environ.get("OPENAI_API_KEY", "").strip()
    return " ".join((text.replace(found, "[key]") if found else text).split())[:200]
