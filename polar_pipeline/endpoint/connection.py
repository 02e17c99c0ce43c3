"""How an endpoint is reached: its address, key, headers and query, and the SDK that speaks to it."""

import os
import re
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SECRET_NAMES, VARIABLE, SynthesisSettings

if TYPE_CHECKING:
    import openai

_OPENAI = "https://api.openai.com/v1"
_CONNECT_TIMEOUT = 10.0  # seconds
# which people copy with the address; elsewhere `/models` is where Azure has the API
_CALL = re.compile(r"(/chat/completions|/chat|/completions|/responses|/embeddings|(?<=/v1)/models)$")


NOT_FOLLOWED = "x-not-followed"  # header that says where a redirect led which was not followed


class Key(NamedTuple):
    """The key of an endpoint, and the environment variable that holds it."""

    variable: str
    value: str
    others: tuple[str, ...] = ()  # further secrets that headers and query carry


def chosen_address(base_url: str | None) -> str:
    """The profile's address, else OPENAI_BASE_URL, else OpenAI's, without a slash at its end."""
    return (base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI).strip().rstrip("/")


def address(base_url: str | None) -> str:
    """The URL for requests at the chosen address. Raises InputError if it is none."""
    chosen = chosen_address(base_url)
    try:
        parts = urlsplit(chosen)
        legal = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        legal = False
    if not legal or not chosen.isprintable() or " " in chosen:
        shown = chosen.rpartition("@")[2]  # without a password
        raise InputError(
            f"{shown!r} is not the address of an endpoint: write synthesis.base_url (or OPENAI_BASE_URL) "
            "like http://localhost:8000/v1."
        )
    if parts.username or parts.password or any(_is_secret(name) for name, _ in parse_qsl(parts.query)):
        raise InputError(
            "the address of the endpoint holds a password or key: leave it out, and use synthesis.key_variable, "
            "headers or query, which can name environment variables."
        )
    path = re.sub("//+", "/", parts.path).rstrip("/")
    return urlunsplit(parts._replace(path=_CALL.sub("", path), fragment=""))


def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in SECRET_NAMES)


def api_key(settings: SynthesisSettings) -> Key:
    """The key in the settings' variable. Raises InputError if there is none, or if no HTTP header can carry it."""
    name = settings.key_variable
    key = os.environ.get(name, "").strip()  # a key read from a file may end in a newline
    if not key:
        raise InputError(f"{name} is not set: export the endpoint's key (any word for a local server without one).")
    if not (key.isascii() and key.isprintable()) or set(key) & set(" \"'"):
        raise InputError(f"{name} holds characters that no key has: copy it anew, without spaces or quotes.")
    _expanded(settings.headers, "headers"), _expanded(settings.query, "query")
    fields = [*settings.headers.values(), *settings.query.values()]
    secrets = {os.environ[found[1]].strip() for text in fields for found in VARIABLE.finditer(text)}
    return Key(name, key, tuple(sorted(secrets, key=len, reverse=True)))


def check_endpoint(settings: SynthesisSettings) -> None:
    """Check address, key and headers without sending anything. Raises InputError if one is of no use."""
    address(settings.base_url)
    api_key(settings)


def open_sdk(settings: SynthesisSettings, path: str = "") -> "openai.AsyncOpenAI":
    """The SDK with the settings' address, a `path` behind it, and the environment's key.

    It retries nothing, because RetryPolicy does.
    """
    import openai

    # shorter than the time-out of the answer, so that a silent address and a slow answer can be told apart
    connect = min(_CONNECT_TIMEOUT, settings.timeout / 2)
    parts, key = urlsplit(address(settings.base_url)), api_key(settings).value
    query = dict(parse_qsl(parts.query)) | _expanded(settings.query, "query")
    # Azure takes the key in a header of its own
    azure = {"api-key": key} if "api-version" in query or str(parts.hostname).endswith(".azure.com") else {}
    try:
        client = openai.DefaultAsyncHttpxClient(event_hooks={"response": [_redirect]})
    except Exception as error:  # of packages that the SDK may change: a proxy or a certificate that is of no use
        raise InputError(
            f"no connection can be opened as the environment says ({error}): correct HTTP_PROXY, HTTPS_PROXY, "
            "ALL_PROXY or SSL_CERT_FILE, or unset them."
        ) from None
    return openai.AsyncOpenAI(
        api_key=key,
        http_client=client,
        base_url=urlunsplit(parts._replace(query="")) + path,
        default_headers=azure | _expanded(settings.headers, "headers"),
        default_query=query,
        max_retries=0,
        timeout=openai.Timeout(None, connect=connect, pool=connect),
    )


async def _redirect(response: Any) -> None:
    """Have redirects followed with the same call: a 301 or 302 would make it a GET, which no endpoint has.

    But not to another host, port or away from TLS: it would get the key, the headers and the prompts.
    """
    if not response.has_redirect_location:
        return
    here, there = response.url, response.url.join(response.headers["location"])
    secured = (here.scheme, there.scheme) == ("http", "https") and here.port is there.port is None
    if here.host != there.host or not (secured or (here.scheme, here.port) == (there.scheme, there.port)):
        del response.headers["location"]
        response.headers[NOT_FOLLOWED] = f"{there.scheme}://{there.netloc.decode()}"
    elif response.status_code in (301, 302):
        response.status_code = 308


def _expanded(given: dict[str, str], what: str) -> dict[str, str]:
    """Headers or query with environment variables in place. Raises InputError for one that is not set or unusable."""

    def value(found: "re.Match[str]") -> str:
        name = found.group(1)
        text = os.environ.get(name, "").strip()
        if not text:
            raise InputError(f"{name} is not set, which synthesis.{what} names: export it, or correct the setting.")
        if not (text.isascii() and text.isprintable()):
            raise InputError(f"{name} holds characters that no header can carry: copy it anew.")
        return text

    return {name: VARIABLE.sub(value, text) for name, text in given.items()}
