"""Vectors are unit, alike for alike texts, near the exact cosine, and computed once where that costs something."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics.pairwise import cosine_similarity

from polar_pipeline.curation.embedding import (
    TOO_LONG,
    TOO_MUCH,
    CachedEmbedder,
    NgramEmbedder,
    cache_name,
    make_embedder,
    refused_for,
)
from polar_pipeline.endpoint.client import Endpoint
from polar_pipeline.endpoint.formats import CallResult
from polar_pipeline.endpoint.ledger import read_account
from polar_pipeline.errors import InputError
from polar_pipeline.task.languages import language
from polar_pipeline_tests.synthesis import made

TEXTS = [
    "Die Stadionwurst gehört verboten, und zwar sofort!",
    "die stadionwurst gehört verboten und zwar sofort",
    "Die Stadionwurst gehört verboten, und zwar morgen!",
    "आज मौसम अच्छा है और हम बाहर जा रहे हैं",
    "@USER https://x.y",
]


def test_unit_vectors_and_nothing_for_nothing() -> None:
    found = NgramEmbedder().embed(TEXTS)
    assert found.dtype == np.float32 and found.shape == (5, 1024)
    np.testing.assert_allclose(np.linalg.norm(found[:4], axis=1), 1, rtol=1e-5)
    assert not found[4].any()
    assert found[0] @ found[1] == pytest.approx(1, abs=1e-5)
    assert 0.6 < found[0] @ found[2] < 0.95 and abs(found[0] @ found[3]) < 0.1


def test_the_cosine_is_that_of_the_whole_counts_but_for_the_hashing() -> None:
    from polar_pipeline.corpus.text import normalise

    counts = CountVectorizer(analyzer="char", ngram_range=(3, 5)).fit_transform([normalise(text) for text in TEXTS[:4]])
    counts.data = np.log1p(counts.data)
    found = NgramEmbedder().embed(TEXTS[:4])
    np.testing.assert_allclose(found @ found.T, cosine_similarity(counts), atol=4 / np.sqrt(1024))


def test_an_encoder_gives_unit_vectors_and_is_asked_once(bases_root: Path, tmp_path: Path) -> None:
    found = make_embedder("tiny:xlm_roberta", tmp_path, bases_root).embed(["abc", "abc", "ein Satz"])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-3)
    np.testing.assert_array_equal(found[0], found[1])
    again = make_embedder("tiny:xlm_roberta", tmp_path, bases_root)
    assert isinstance(again, CachedEmbedder) and again.new(["abc", "other"]) == ["other"]
    assert [file.name for file in tmp_path.iterdir()] == [cache_name("tiny:xlm_roberta")]


def test_an_embedder_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'\./none' of curation\.embedder '\./none' is no folder"):
        make_embedder("./none", tmp_path, tmp_path).embed(["a"])


def endpoint(url: str, folder: Path, **changes: object) -> Endpoint:
    return Endpoint(language("deu"), made.settings(base_url=url, **changes), folder / "ledgers", lambda _: None)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")


@pytest.mark.slow
@pytest.mark.usefixtures("key")
def test_an_endpoints_embeddings_are_asked_for_once_paid_for_and_refusals_do_not_repeat_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = made.Running(tmp_path, {})
    try:
        asked = endpoint(server.url, tmp_path, price_embedding=1000.0)
        embedder = make_embedder("api:small", tmp_path / "cache", tmp_path, asked)
        found = embedder.embed(["abc", "abc", "a"])
        np.testing.assert_allclose(
            found, [[3, 1], [3, 1], [1, 1]] / np.linalg.norm([[3, 1], [3, 1], [1, 1]], axis=1)[:, None], rtol=1e-3
        )
        make_embedder("api:small", tmp_path / "cache", tmp_path, asked).embed(["a"])
        assert server.get("count")["calls"] == 1
        assert embedder.calls.ended == {"embedded": 1} and embedder.calls.dollars == pytest.approx(0.001)
        assert isinstance(embedder, CachedEmbedder) and embedder.new(["a", "zz", "abc", "zz"]) == ["zz"]
        account = read_account(asked.ledgers)
        assert account.requests == 1 and account.open == 0 and account.settled == pytest.approx(0.001)  # one token
        with pytest.raises(InputError, match="'api:large': the endpoint gave no embeddings \\(status 404") as caught:
            make_embedder("api:large", tmp_path / "cache", tmp_path, asked).embed(["a"])
        with pytest.raises(InputError, match=r"max_dollars \(\$0\.0010\) leaves no room for curation\.embedder"):
            make_embedder(
                "api:small", tmp_path / "cache", tmp_path, endpoint(server.url, tmp_path, max_dollars=0.001)
            ).embed(["b"])
    finally:
        server.stop()
    assert "sk-very-secret" not in str(caught.value)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(InputError, match="OPENAI_API_KEY is not set"):
        make_embedder("api:small", tmp_path / "other", tmp_path, asked).embed(["a"])


@pytest.mark.slow
@pytest.mark.usefixtures("key")
def test_embeddings_are_tried_again_and_an_endpoint_that_is_not_there_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polar_pipeline.endpoint.rate_limit._FIRST_BACKOFF", 0.01)
    server = made.Running(tmp_path, {"500": 0.5})
    try:
        found = make_embedder("api:small", tmp_path / "cache", tmp_path, endpoint(server.url, tmp_path, attempts=12))
        for place in range(6):
            found.embed(["x" * (place + 1)])
        assert server.get("count")["calls"] > 6
    finally:
        server.stop()
    gone = endpoint(f"http://127.0.0.1:{made.free_port()}/v1", tmp_path / "gone", attempts=2)
    with pytest.raises(InputError, match="no connection"):
        make_embedder("api:small", tmp_path / "none", tmp_path, gone).embed(["a"])
    assert read_account(gone.ledgers) == (0, 0.0, 0.0)


@pytest.mark.slow
@pytest.mark.usefixtures("key")
@pytest.mark.parametrize("rules", [{"most_texts": 8}, {"most_texts": 1, "no_index": 1}, {"base64": 1}])
def test_an_endpoint_gets_as_many_texts_as_it_takes_each_once(tmp_path: Path, rules: dict[str, float]) -> None:
    texts = ["x" * (place + 1) for place in range(20)]
    server = made.Running(tmp_path, rules)
    try:
        asked = endpoint(server.url, tmp_path)
        found = make_embedder("api:small", tmp_path / "cache", tmp_path, asked).embed(texts)
        assert server.get("count")["embedded"] == 20
    finally:
        server.stop()
    np.testing.assert_allclose(found[:, 0] / found[:, 1], np.arange(1, 21), rtol=2e-2)  # float16 of unit vectors


@pytest.mark.parametrize(
    ("status", "words", "fewer", "shorter"),
    [
        (500, "upstream time limit exceeded", False, False),
        (400, "Invalid token", False, False),
        (400, "input must be an array of at most 96 items", True, False),
        (413, "Payload Too Large", True, True),
        (422, "batch size 256 > maximum allowed batch size 32", True, False),
        (422, "`inputs` must have less than 512 tokens. Given: 1000", True, True),
        (500, "input is too large to process. increase the physical batch size", True, True),
        (400, "This model's maximum context length is 8192 tokens", True, True),
        (401, "too many tokens", False, False),
    ],
)
def test_which_refusals_are_about_the_number_or_length_of_texts(
    status: int, words: str, fewer: bool, shorter: bool
) -> None:
    """A passing error must not have posts cut: the vectors of what is left would be kept for good."""
    result = CallResult(failure=f"status {status}", message=words)
    assert (refused_for(TOO_MUCH, result), refused_for(TOO_LONG, result)) == (fewer, shorter)


@pytest.mark.slow
@pytest.mark.usefixtures("key")
def test_a_text_that_is_too_long_for_the_endpoints_model_is_cut(tmp_path: Path) -> None:
    server = made.Running(tmp_path, {"longest_text": 100})
    try:
        asked = endpoint(server.url, tmp_path)
        found = make_embedder("api:small", tmp_path / "cache", tmp_path, asked).embed(["x" * 390, "x" * 50, "y" * 3])
        assert server.get("count")["embedded"] == 3
    finally:
        server.stop()
    np.testing.assert_allclose(found[:, 0] / found[:, 1], [97, 50, 3], rtol=2e-2)


@pytest.mark.slow
@pytest.mark.usefixtures("key")
def test_endpoints_that_name_a_model_alike_share_no_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        servers.append(made.Running(tmp_path / name, {}))
    one, other = servers

    def asked(url: str | None) -> list[int]:
        """Calls of both servers after the same text was embedded."""
        named = Endpoint(language("deu"), made.settings(base_url=url), tmp_path / "ledgers", lambda _: None)
        embedder = make_embedder("api:small", tmp_path / "cache", tmp_path, named)
        assert embedder.name == "api:small" and embedder.embed(["abc"]).shape == (1, 2)
        return [server.get("count")["calls"] for server in servers]

    try:
        assert asked(one.url) == [1, 0] == asked(f"{one.url}/")
        monkeypatch.setenv("OPENAI_BASE_URL", other.url)
        assert asked(None) == [1, 1] == asked(f"{other.url}/")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{one.url}//")
        assert asked(None) == [1, 1] == asked(other.url)  # what the first one gave is still there
    finally:
        for server in servers:
            server.stop()
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [cache_name("api:small")]
