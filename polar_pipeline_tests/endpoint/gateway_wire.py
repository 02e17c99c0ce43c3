"""Cases of `gateway` about the wire: rate limits, redirects, bodies, streams, addresses, keys and proxies."""

import datetime
import gzip
import json
import time
from collections.abc import Callable
from typing import Any

from polar_pipeline_tests.endpoint.gateway import Answer, Call, good, usage
from polar_pipeline_tests.endpoint.gateway_cases import NOTHING, Case, Respond, case, content

# headers and body of a refusal that says to come back at a moment, 0.6 s from the first one
_WAITS: dict[str, Callable[[float], tuple[dict[str, str], Any]]] = {
    "retry-after, float": lambda _: ({"retry-after": "0.6"}, b""),
    "retry-after with a unit": lambda _: ({"retry-after": "0.6s"}, b""),
    "retry-after-ms of Azure": lambda _: ({"x-ms-retry-after-ms": "600"}, b""),
    "reset in ms": lambda _: (_spent("-requests", "600ms"), b""),
    "reset as a moment": lambda end: (_spent("", str(end + 0.1)), b""),
    "reset as a moment in ms": lambda end: (_spent("", str(int(1000 * end + 100))), b""),
    "reset of requests as a moment": lambda end: (_spent("-requests", str(int(end + 1))), b""),
    "reset as a date": lambda end: (_spent("-requests", _date(end + 0.1)), b""),
    "Anthropic": lambda end: ({"anthropic-ratelimit-requests-remaining": "0",
                               "anthropic-ratelimit-requests-reset": _date(end + 0.1).replace("+00:00", "Z")}, b""),
    "IETF": lambda _: ({"ratelimit-remaining": "0", "ratelimit-reset": "0.6"}, b""),
    "IETF, one header": lambda _: ({"ratelimit": "limit=10, remaining=0, reset=1"}, b""),
    "IETF, draft 8": lambda _: ({"ratelimit": '"default";r=0;t=1'}, b""),
    "words of Groq": lambda _: ({}, {"error": {"message": "Limit reached. Please try again in 0.6s. Visit x"}}),
    "words of LiteLLM": lambda _: ({}, {"error": {"message": "No deployments available, Try again in 1 seconds. x"}}),
    "Google's retryDelay": lambda _: ({}, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "You "
                                      "exceeded your current quota", "details": [{"retryDelay": "0.6s"}]}}]),
    "a model that is loading": lambda _: ({}, {"error": "Model x is currently loading", "estimated_time": 0.6}),
}  # fmt: skip


def _spent(what: str, reset: str) -> dict[str, str]:
    return {f"x-ratelimit-remaining{what}": "0", f"x-ratelimit-reset{what}": reset}


def _date(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat()


def _closed_for_a_while(said: Callable[[float], tuple[dict[str, str], Any]]) -> Respond:
    """Refuses the second call and those within half a second of it."""
    ends: list[float] = []

    def respond(call: Call) -> Answer:
        if call.number == 1:
            ends.append(time.time() + 0.5)
        if ends and time.time() < ends[0]:
            headers, body = said(ends[0])
            return Answer(body, 503 if "estimated_time" in str(body) else 429, headers=headers)
        return good(call)

    return respond


def _rates() -> list[Case]:
    found = [
        Case(f"rate: {name}", lambda said=said: _closed_for_a_while(said), calls=14, settings={"attempts": 2})
        for name, said in _WAITS.items()
    ]
    fine = {
        "remaining -1": {"x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "0"},
        "remaining 0, reset 0": _spent("-requests", "0s"),
        "retry-after beside an answer": {"retry-after": "30"},
    }
    found += [case(f"rate: {name}", lambda c, own=own: good(c, headers=own), calls=8) for name, own in fine.items()]
    among = {
        "529": Answer({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, 529),
        "a page with 503": Answer("<html><title>503</title></html>", 503),
        "429 without a word": Answer(b"", 429),
        "499": Answer({"error": "closed"}, 499),
    }
    return found + [
        case(f"among answers: {name}", lambda c, own=own: own if c.number % 3 == 1 else good(c))
        for name, own in among.items()
    ]


def _moved_to(place: str, status: int) -> Answer:
    return Answer(b"", status, headers={"location": place})


def _moved(status: int) -> Respond:
    def respond(call: Call) -> Answer:
        if not call.path.startswith("/moved"):
            return Answer(b"", status, headers={"location": f"/moved{call.path}"})
        return good(call) if call.method == "POST" else Answer({"detail": "Method Not Allowed"}, 405)

    return respond


def _sometimes(answer: Callable[[Call], Answer | None]) -> Respond:
    return lambda call: answer(call) if call.number % 3 == 1 else good(call)


def _stream(call: Call, data: str = "data: ", end: str = "\n", text: str = "", last: Any = None) -> Answer:
    text = text or content(call)
    deltas = [{"role": "assistant", "content": ""}, {"content": text[:20]}, {"content": text[20:]}]
    events = [{"choices": [{"index": 0, "delta": delta}, {"index": 1, "delta": {"content": "zz"}}]} for delta in deltas]
    events += [{"choices": [{"delta": {}, "finish_reason": "stop"}]}, last or {"choices": [], "usage": usage()}]
    body = "".join(f"{data}{json.dumps(event, ensure_ascii=False)}{end}{end}" for event in events)
    return good(call, content=f": PROCESSING{end}{end}{body}{data}[DONE]{end}{end}")


def _bodies() -> list[Case]:
    whole: dict[str, Respond] = {
        **{f"redirect {status}": _moved(status) for status in (301, 302, 307, 308)},
        "gzip": lambda c: good(c, content=gzip.compress(json.dumps(good(c).content).encode()),
                               headers={"content-encoding": "gzip"}),
        "chunks": lambda c: good(c, chunked=True),
        "closed after each answer": lambda c: good(c, cut=1 << 30),
        "blanks before it": lambda c: good(c, content="\n \n" + json.dumps(good(c).content)),
        "comments before it": lambda c: good(c, content=": PROCESSING\n\n" + json.dumps(good(c).content)),
        "as text/html": lambda c: good(c, headers={"content-type": "text/html"}),
        "a stream": _stream,
        "a stream with CRLF and without blanks": lambda c: _stream(c, "data:", "\r\n"),
        "a stream with raw line separators": lambda c: _stream(c, text=json.dumps(
            {"posts": [post.replace("post ", "post \u2028") for post in c.posts]}, ensure_ascii=False)),
        "a stream with usage of Groq": lambda c: _stream(c, last={"choices": [], "x_groq": {"usage": usage()}}),
        "a stream without marks": lambda c: _stream(c, data=""),
    }  # fmt: skip
    broken: dict[str, Respond] = {
        "body cut": _sometimes(lambda c: good(c, cut=60, posts=0)),
        "closed without a word": _sometimes(lambda _: None),
    }
    found = [case(f"wire: {name}", respond) for name, respond in whole.items()]
    found += [case(f"wire: {name}", respond, exact=False) for name, respond in broken.items()]
    stops: dict[str, tuple[Answer, str]] = {
        "redirect in a circle": (_moved_to("/v1/chat/completions", 307), "redirects .Exceeded"),
        # which would get the key and the prompts
        "redirect to another port": (_moved_to("http://127.0.0.1:9/", 308), "redirects .to http://127.0.0.1:9, "),
        "redirect to another host": (_moved_to("http://localhost:9/", 302), "redirects .to http://localhost:9, "),
    }
    found += [
        case(f"wire: {name}", lambda _, own=own: own, keeps="none", says=says) for name, (own, says) in stops.items()
    ]
    midway = Answer({"error": {"code": 502, "message": "died"}, "usage": usage(100, 7)}, tokens=(100, 7))
    return [*found, case("inside 200: an error that charges", _sometimes(lambda _: midway))]


_AT = "http://127.0.0.1:PORT"
_CALL = "/v1/chat/completions"
_ADDRESSES = {  # an address, and where the API is
    f"{_AT}/v1/": _CALL,
    _AT: _CALL,
    f"{_AT}/": "/chat/completions",
    f"{_AT}/openai/v1": f"/openai{_CALL}",
    f"{_AT}/api": f"/api{_CALL}",
    f"{_AT}/v1/chat/completions/": _CALL,
    f"{_AT}/v1/chat": _CALL,
    f"{_AT}/v1/models": _CALL,
    f"{_AT}/models": "/models/chat/completions",
    f"{_AT}/x/chat/completions?api-version=1": "/x/chat/completions",
    f"{_AT}//v1//": _CALL,
    f"HTTP{_AT[4:]}/v1": _CALL,
    "http://localhost:PORT/v1": _CALL,
}
_NO_ADDRESSES = {
    "http://user:very-secret@127.0.0.1:PORT/v1": "password or key",
    "http://user:very-secret@127.0.0.1:99999/v1": "is not the address",
    "user:very-secret@127.0.0.1:PORT/v1": "is not the address",
    f"{_AT}/v1?api_key=very-secret": "password or key",
    "127.0.0.1:PORT/v1": "is not the address",
    "http://[::1:PORT/v1": "is not the address",
    "https://127.0.0.1:PORT/v1": "no connection",
}
_KEYS = {
    "": "is not set",
    "Bearer sk-very-secret": "without spaces",
    '"sk-very-secret"': "quotes",
    "sk-very\nsecret": "holds characters",
}
_ENVIRONMENTS: dict[str, tuple[dict[str, str], str]] = {
    "a dead proxy": ({"HTTP_PROXY": "http://127.0.0.1:9"}, "no connection .*HTTP_PROXY"),
    "a proxy of another scheme": ({"HTTP_PROXY": "ftp://127.0.0.1:9"}, "correct HTTP_PROXY"),
    "an illegal proxy": ({"HTTP_PROXY": "127.0.0.1:9:8:x"}, "correct HTTP_PROXY"),
    "socks": ({"ALL_PROXY": "socks5://127.0.0.1:9"}, "ALL_PROXY"),
    "a certificate that is not there": ({"SSL_CERT_FILE": "/nowhere/ca.pem"}, "SSL_CERT_FILE"),
}


def _only_at(path: str) -> Respond:
    return lambda call: good(call) if call.path.partition("?")[0] == path else Answer({"detail": "Not Found"}, 404)


def _connections() -> list[Case]:
    found = [case(f"address: {url}", _only_at(at), settings={"base_url": url}) for url, at in _ADDRESSES.items()]
    refused = {"keeps": "none", "calls": 0}
    found += [
        case(f"address: {url!r}", good, says=says, settings={"base_url": url}, **refused)
        for url, says in _NO_ADDRESSES.items()
    ]
    found += [
        case(f"key: {key!r}", good, says=says, variables={"OPENAI_API_KEY": key}, **refused)
        for key, says in _KEYS.items()
    ]
    found += [
        case(f"proxy: {name}", good, says=says, variables=variables | {"NO_PROXY": ""}, **refused)
        for name, (variables, says) in _ENVIRONMENTS.items()
    ]
    echo = "sk-very-secret/abc".replace("/", "\\/")
    return [
        *found,
        case("key: repeated with an escaped slash", lambda c: good(c, content='{"choices": [{"message": {"content": '
             f'"{echo}"}}}}]}}', posts=0), keeps="none", exact=False, says=NOTHING,
             variables={"OPENAI_API_KEY": "sk-very-secret/abc"}),
        case("key: of a header, repeated", lambda c: good(c, c.headers["x-auth-token"].split()[1], posts=0),
             keeps="none", says=NOTHING, settings={"headers": {"X-Auth-Token": "Token $TEAM"}},
             variables={"TEAM": "very-secret"}),
        case("stops: a key that is withdrawn later", lambda c: Answer({"error": "revoked"}, 401) if c.number == 4 else
             good(c), keeps="none", says="refused the key", settings={"posts": 120}),
    ]  # fmt: skip


WIRE_CASES = [*_rates(), *_bodies(), *_connections()]
