"""Endpoints as they are: the right posts are kept, nothing is paid for twice, and what must stop says why at once."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from polar_pipeline.endpoint import formats
from polar_pipeline.endpoint.answers import Read
from polar_pipeline.endpoint.completion import ModelOutput
from polar_pipeline.endpoint.ledger import Ledger
from polar_pipeline.errors import InputError
from polar_pipeline.synthesis.generate import Made, planned_requests
from polar_pipeline_tests.endpoint.behaviours import BODIES, WHOLE
from polar_pipeline_tests.synthesis import made
from polar_pipeline_tests.synthesis.made import generated as make_posts
from polar_pipeline_tests.synthesis.test_generate import running

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")


def plan(server: made.Running, ledgers: Path, said: list[str] | None = None, **settings: Any) -> Made:
    """What came of a plan of 60 posts."""
    own = made.settings(**({"base_url": server.url} | settings))
    return make_posts(made.make_posts(), "deu", made.CARD, own, 0, ledgers, ([] if said is None else said).append)


@pytest.mark.parametrize(
    ("fate", "refused"),
    [
        ("no_sizes", 1), ("no_schema", 1), ("object_only", 1), ("schema_500", 1), ("no_format", 2),
        ("completion_tokens", 1), ("no_temperature", 1), ("short_context", 2), ("small_limit", 2), ("everything", 4),
    ],
)  # fmt: skip
def test_what_an_endpoint_does_not_take_is_found_out_by_one_request(fate: str, refused: int, tmp_path: Path) -> None:
    said: list[str] = []
    with running(tmp_path, {fate: 1.0}) as server:
        done = plan(server, tmp_path / "ledgers", said)
        count = server.get("count")
        assert len(done.posts) == 60 and done.outcomes == {"ok": count["charged"]}, said
        assert 0 < count["calls"] - count["charged"] <= refused
        assert any("is asked in another way" in line for line in said)
        # what worked is remembered: a larger plan sends nothing that is refused
        assert len(plan(server, tmp_path / "ledgers", posts=90).posts) == 90
        assert server.get("count")["calls"] - server.get("count")["charged"] == count["calls"] - count["charged"]


@pytest.mark.parametrize("fate", [*WHOLE, *BODIES])
def test_answers_are_read_however_they_are_wrapped(fate: str, tmp_path: Path) -> None:
    with running(tmp_path, {fate: 1.0}) as server:
        done, count = plan(server, tmp_path / "ledgers"), server.get("count")
    assert (len(done.posts), count["posts"], count["calls"]) == (60, 60, count["charged"])
    assert done.calls.ended == {"ok": count["charged"]}
    texts = done.posts["text"].map(lambda text: " ".join(text.split()))
    assert texts.str.fullmatch(r"post [0-9a-f]{12} \d+").all() and texts.is_unique
    # in their order: the posts of a request have its labels
    assert texts.str.split().str[-1].astype(int).tolist() == [int(name.rpartition("_")[2]) for name in done.posts["id"]]


@pytest.mark.parametrize("fate", ["inside_429", "inside_500", "inside_choice"])
def test_errors_in_answers_cost_nothing_and_are_tried_again(fate: str, tmp_path: Path) -> None:
    with running(tmp_path, {fate: 0.3}) as server:
        done, count = plan(server, tmp_path / "ledgers", attempts=20), server.get("count")
    assert len(done.posts) == 60
    assert done.calls.dollars == pytest.approx(150e-6 * done.calls.ended["ok"])
    assert count["calls"] == sum(done.calls.ended.values())


@pytest.mark.parametrize(
    ("fate", "sentence"),
    [
        ("inside_quota", "has no money left"),
        ("inside_billing", "has no money left"),
        ("inside_key", "refused the key"),
        ("inside_model", "has no model 'gpt-4o-mini'"),
        ("inside_closed", "has closed the account"),
        ("page", "answered with a web page ('Welcome to nginx!')"),
    ],
)
def test_what_every_request_would_meet_stops_at_once(fate: str, sentence: str, tmp_path: Path) -> None:
    with running(tmp_path, {fate: 1.0}) as server:
        port = server.port
        with pytest.raises(InputError) as error:
            plan(server, tmp_path / "ledgers")
        assert sentence in str(error.value) and "very-secret" not in str(error.value)
        assert server.get("count")["calls"] == 1
    # once it is mended, the same plan is asked by itself
    with running(tmp_path, {}, port=port) as server:
        assert len(plan(server, tmp_path / "ledgers").posts) == 60


def test_an_address_with_or_without_v1(tmp_path: Path) -> None:
    with running(tmp_path, {}) as server:
        roots = (server.address, f"{server.address}/", f"{server.url}/", f"{server.url}/chat/completions")
        for number, url in enumerate(roots):
            assert len(plan(server, tmp_path / str(number), base_url=url).posts) == 60, url


def test_one_header_without_remaining_requests_holds_nothing_for_ever(tmp_path: Path) -> None:
    with running(tmp_path, {"remaining_0": 1.0}) as server:
        done, count = plan(server, tmp_path / "ledgers"), server.get("count")
    assert len(done.posts) == 60 and count["calls"] == count["charged"]


def test_a_short_key_does_not_eat_letters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    sentence = r"takes no such request \(status 400, 'no, Bearer \[key\]'\)"
    with running(tmp_path, {"400": 1.0}) as server, pytest.raises(InputError, match=sentence):
        plan(server, tmp_path / "ledgers")


def test_what_a_better_reader_can_read_is_not_paid_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = formats.read_texts

    def reader_of_old(said: ModelOutput, labels: Any, *more: Any) -> Read:
        found = real(said, labels, *more)
        return (
            found
            if len(labels) % 2 == 0 and hashlib.sha256(said.text.encode()).digest()[0] % 2
            else Read((), "malformed")
        )

    with running(tmp_path, {"fenced": 1.0}) as server:
        monkeypatch.setattr(formats, "read_texts", reader_of_old)
        before = plan(server, tmp_path / "ledgers", shares=(1.0, 0.0, 0.0))
        assert 0 < len(before.posts) < 60
        monkeypatch.undo()
        monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
        planned = made.settings(base_url=server.url, shares=(1.0, 0.0, 0.0))
        requests = {one.key: one for one in planned_requests(made.make_posts(), "deu", made.CARD, planned, 0)}
        with Ledger(tmp_path / "ledgers", "deu") as ledger:
            spent = ledger.account().settled
            found = ledger.read_again(requests, lambda reply: formats.read_again(requests[reply.key], reply))
            assert found > 0 and ledger.account().settled == spent
            assert ledger.read_again(requests, lambda reply: formats.read_again(requests[reply.key], reply)) == 0
        count = server.get("count")
        after = plan(server, tmp_path / "ledgers", shares=(1.0, 0.0, 0.0))
        assert server.get("count") == count and len(after.posts) == 60


@pytest.mark.parametrize("fate", ["few", "many"])
def test_one_post_too_few_or_too_many_keeps_those_whose_label_is_sure(fate: str, tmp_path: Path) -> None:
    with running(tmp_path, {fate: 1.0}) as server:
        done, count = plan(server, tmp_path / "ledgers", shares=(1.0, 0.0, 0.0)), server.get("count")
    # what brought no post for sure is asked for once more, and nothing else
    assert count["calls"] == count["charged"] == 10 + done.outcomes["malformed"]
    assert 0 < len(done.posts) < 60
    with running(tmp_path, {fate: 1.0}) as server, pytest.raises(InputError, match="no request brought posts"):
        plan(server, tmp_path / "rewritten", shares=(0.0, 1.0, 0.0))


def test_secrets_that_an_answer_repeats_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM", "header-secret")
    with running(tmp_path, {"echo": 1.0}) as server, pytest.raises(InputError):
        plan(server, tmp_path / "ledgers", headers={"X-Token": "$TEAM"})
    kept = b"".join(file.read_bytes() for file in (tmp_path / "ledgers").iterdir())
    assert b"very-secret" not in kept and b"header-secret" not in kept and b"[key]" in kept


def test_a_refusal_that_names_both_limits_ends(tmp_path: Path) -> None:
    with running(tmp_path, {"both_limits": 1.0}) as server:
        with pytest.raises(InputError, match="takes no such request"):
            plan(server, tmp_path / "ledgers")
        assert server.get("count")["calls"] < 40


def test_a_page_or_a_refusal_among_answers_changes_nothing_for_the_others(tmp_path: Path) -> None:
    with running(tmp_path, {"page_later": 0.2, "context_later": 0.2, "busy_later": 0.2}) as server:
        done = plan(server, tmp_path / "ledgers", attempts=20)
        calls = server.get("calls")
    assert done.outcomes["ok"] >= 5
    later = [call for call in calls[10:] if "response_format" in call]
    assert len({call["max_tokens"] for call in later if "max_tokens" in call}) >= 1
    assert all(call["response_format"]["type"] == "json_schema" and "temperature" in call for call in later)
