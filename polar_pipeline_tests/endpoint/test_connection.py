"""Addresses, keys, headers and query go out as an endpoint wants them, and never stand anywhere else."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from polar_pipeline.endpoint.connection import address, api_key, check_endpoint
from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import OtherEndpoint
from polar_pipeline_tests.synthesis import made
from polar_pipeline_tests.synthesis.made import generated as make_posts


class Echo(BaseHTTPRequestHandler):
    """Answers every call with posts, and remembers what came."""

    seen: ClassVar[list[tuple[str, dict[str, str]]]] = []

    def do_POST(self) -> None:  # the name that http.server asks for
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        size = body["response_format"]["json_schema"]["schema"]["properties"]["posts"]["minItems"]
        content = json.dumps({"posts": [f"post {len(self.seen)} {place}" for place in range(size)]})
        answer = json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    Echo.seen = []
    server = HTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()


def call(folder: Path, **settings: Any) -> tuple[str, dict[str, str]]:
    """Path and headers of the first call of a plan."""
    own = made.settings(posts=6, shares=(1.0, 0.0, 0.0), timeout=20.0, **settings)
    make_posts(made.make_posts(), "deu", made.CARD, own, 0, folder / "ledgers", lambda _: None)
    return Echo.seen[0]


def test_azure(echo: str, tmp_path: Path) -> None:
    base = f"{echo}/openai/deployments/mini"
    path, headers = call(tmp_path, base_url=base, query={"api-version": "2024-10-21"})
    assert path == "/openai/deployments/mini/chat/completions?api-version=2024-10-21"
    assert headers["api-key"] == "sk-very-secret"
    Echo.seen.clear()
    path, _ = call(tmp_path / "other", base_url=f"{base}/chat/completions?api-version=2024-10-21")
    assert path == "/openai/deployments/mini/chat/completions?api-version=2024-10-21"


def test_headers_and_another_variable_for_the_key(echo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "of-mine")
    monkeypatch.setenv("TEAM_TOKEN", "team secret")
    headers = {"X-Title": "polar", "X-Auth-Token": "Token $TEAM_TOKEN"}
    path, got = call(tmp_path, base_url=echo, key_variable="MINE", headers=headers)
    assert path == "/v1/chat/completions"
    assert (got["authorization"], got["x-title"]) == ("Bearer of-mine", "polar")
    assert got["x-auth-token"] == "Token team secret"
    kept = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"of-mine" not in kept and b"team secret" not in kept


def test_no_key_stands_in_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    for headers in ({"Authorization": "Bearer abc"}, {"x-api-key": "abc"}):
        with pytest.raises(ValidationError, match="seems to hold a key"):
            made.settings(headers=headers)
    for query in ({"code": "abc"}, {"sig": "$1"}):
        with pytest.raises(ValidationError, match="seems to hold a key"):
            made.settings(query=query)
    for url in ("http://u:pw@h/v1", "http://h/v1?code=abc"):
        with pytest.raises(InputError, match="holds a password or key") as error:
            address(url)
        assert "abc" not in str(error.value) and "pw" not in str(error.value)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with pytest.raises(InputError, match=r"NOT_THERE is not set, which synthesis\.headers names"):
        check_endpoint(made.settings(headers={"X-Auth": "$NOT_THERE"}))
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="MINE is not set"):
        api_key(made.settings(key_variable="MINE"))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://h:1/v1/", "http://h:1/v1"),
        ("http://h:1/v1/chat/completions", "http://h:1/v1"),
        ("http://h:1/v1/embeddings/", "http://h:1/v1"),
        ("http://h:1/x?api-version=1", "http://h:1/x?api-version=1"),
        (" http://h:1 ", "http://h:1"),
    ],
)
def test_addresses(given: str, meant: str) -> None:
    assert address(given) == meant


def test_another_endpoint_for_a_task() -> None:
    own = made.settings(base_url="http://a/v1", model="big")
    judge = own.at(OtherEndpoint(base_url="http://b/v1", model="small", key_variable="OTHER"))
    assert (judge.base_url, judge.model, judge.key_variable) == ("http://b/v1", "small", "OTHER")
    assert own.at(None) is own and own.at(OtherEndpoint(model="small")).base_url == "http://a/v1"
    with pytest.raises(ValidationError, match="needs a key_variable"):
        OtherEndpoint(base_url="http://b/v1")
