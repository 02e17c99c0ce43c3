"""Generation against a real server that misbehaves: every request ends somewhere, is paid for once, and adds up."""

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai  # noqa: F401 - forked with the rest
import pytest

from polar_pipeline.errors import InputError
from polar_pipeline.synthesis.generate import generate
from polar_pipeline.synthesis.ledger import Budget, Ledger
from polar_pipeline.synthesis.make import make_posts, planned_requests
from polar_pipeline.synthesis.request import Request
from polar_pipeline.task.synthesis import SynthesisSettings
from polar_pipeline_tests.synthesis import made
from polar_pipeline_tests.synthesis.server import COMPLETION, PROMPT

pytestmark = pytest.mark.slow
PRICE = (PROMPT + COMPLETION) / 1e6  # of an answer, at a dollar per million tokens


@contextmanager
def running(folder: Path, rules: dict[str, float], delay: float = 0.0, **more: Any) -> Iterator[made.Running]:
    server = made.Running(folder, rules, delay, **more)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")


def requests(settings: SynthesisSettings) -> list[Request]:
    return planned_requests(made.make_posts(), "deu", made.CARD, settings, 0)


def test_all_goes_well_and_a_second_time_costs_nothing(tmp_path: Path) -> None:
    with running(tmp_path, {}) as server:
        settings = made.settings(base_url=server.url)
        one = make_posts(made.make_posts(), "deu", made.CARD, settings, 0, tmp_path / "ledgers", lambda _: None)
        count = server.get("count")
        two = make_posts(made.make_posts(), "deu", made.CARD, settings, 0, tmp_path / "ledgers", lambda _: None)
        assert server.get("count") == count
    assert one.posts.equals(two.posts) and len(one.posts) == 60 == count["posts"]
    assert one.calls.dollars == pytest.approx(PRICE * count["charged"])
    assert set(one.posts["source"]) == {"direct", "rewrite", "contrast"}
    pairs = one.posts[one.posts["source"] == "contrast"].groupby("parent_id")["label"]
    assert (pairs.nunique() == 2).all() and (pairs.size() == 2).all()


@pytest.mark.parametrize(
    "fate",
    [
        "429",
        "429_after",
        "500",
        "503_after",
        "half",
        "malformed",
        "schema",
        "surrogate",
        "nested",
        "huge",
        "length",
        "no_usage",
        "refusal",
    ],
)
def test_each_misbehaviour_ends_and_adds_up(tmp_path: Path, fate: str) -> None:
    with running(tmp_path, {fate: 0.3}) as server:
        settings = made.settings(base_url=server.url, posts=120)
        planned = requests(settings)
        done = generate(planned, tmp_path / "ledgers", "deu", settings, lambda _: None)
        count = server.get("count")
    assert sum(done.outcomes.values()) == len(planned)
    free = sum(count for outcome, count in done.calls.ended.items() if outcome.startswith("status 4"))
    assert done.account.requests == count["calls"] - free and (free > 0) == fate.startswith("429")
    assert sum(done.calls.ended.values()) == count["calls"]  # each call is in the account of its language
    assert done.calls.dollars == pytest.approx(done.account.settled)
    assert done.account.open == 0
    if fate in ("half", "no_usage", "huge"):  # the endpoint did not say, so the worst case is counted
        assert done.account.settled >= PRICE * count["charged"]
    else:
        assert done.account.settled == pytest.approx(PRICE * count["charged"])
    if fate in ("429", "429_after", "500", "503_after", "half", "no_usage", "huge"):
        assert set(done.outcomes) == {"ok"}
    if fate == "refusal":
        assert done.outcomes["refused"] > 0 and done.outcomes["ok"] > 0


def test_a_server_that_hangs_is_given_up_after_the_attempts(tmp_path: Path) -> None:
    with running(tmp_path, {"hang": 1.0}) as server:
        settings = made.settings(base_url=server.url, posts=6, shares=(1, 0, 0), timeout=0.2, attempts=2)
        done = generate(requests(settings), tmp_path / "ledgers", "deu", settings, lambda _: None)
    assert done.outcomes == {"no answer in time": 1}
    assert done.account.requests == 2 and done.account.settled > 0  # it may have worked on both


@pytest.mark.parametrize(("fate", "sentence"), [("401", "refused the key"), ("404", "has no model 'gpt-4o-mini'")])
def test_a_wrong_key_or_model_stops_at_once_in_one_sentence_without_the_key(
    tmp_path: Path, fate: str, sentence: str
) -> None:
    with running(tmp_path, {fate: 1.0}) as server:
        settings = made.settings(base_url=server.url, posts=600, concurrency=4)
        with pytest.raises(InputError, match=sentence) as caught:
            generate(requests(settings), tmp_path / "ledgers", "deu", settings, lambda _: None)
        assert server.get("count")["calls"] <= 8
    assert "sk-very-secret" not in str(caught.value)
    assert "sk-very-secret" not in (tmp_path / "ledgers" / "deu.jsonl").read_text()
    with Ledger(tmp_path / "ledgers", "deu", Budget(None, None)) as ledger:
        assert ledger.account().settled == ledger.account().open == 0  # a wrong key costs nothing of the cap


def test_without_a_key_nothing_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    settings = made.settings(base_url="http://127.0.0.1:9/v1")
    with pytest.raises(InputError, match="OPENAI_API_KEY is not set"):
        generate(requests(settings), tmp_path, "deu", settings, lambda _: None)


def test_the_cap_is_not_passed_and_what_there_is_stays(tmp_path: Path) -> None:
    with running(tmp_path, {}) as server:
        settings = made.settings(base_url=server.url, posts=300, max_dollars=0.008, concurrency=16)
        done = generate(requests(settings), tmp_path / "ledgers", "deu", settings, lambda _: None)
        assert server.get("count")["charged"] == done.outcomes["ok"]
    assert "max_dollars ($0.0080) was reached" in done.stopped and 0 < done.outcomes["ok"] < len(requests(settings))
    assert done.account.settled + done.account.open <= 0.008


def _generate(folder: str, url: str) -> None:
    settings = made.settings(base_url=url, posts=1800, concurrency=8)
    generate(requests(settings), Path(folder), "deu", settings, lambda _: None)


def test_killed_again_and_again_every_request_is_answered_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")  # what a kill finds is the same, and the imports are done
    randomness, killed = random.Random(0), 0
    with running(tmp_path, {"429": 0.02, "500": 0.02}, delay=0.02) as server:
        for _ in range(16):
            worker = context.Process(target=_generate, args=(str(tmp_path / "ledgers"), server.url))
            worker.start()
            before = server.get("count")["calls"]
            while server.get("count")["calls"] == before and worker.is_alive():
                time.sleep(0.01)
            time.sleep(randomness.random() * 0.2)
            if worker.pid and worker.is_alive():
                os.kill(worker.pid, signal.SIGKILL)
                killed += 1
            worker.join()
        assert killed > 8  # the others had ended
        settings = made.settings(base_url=server.url, posts=1800, concurrency=8)
        done = generate(requests(settings), tmp_path / "ledgers", "deu", settings, lambda _: None)
        count = server.get("count")
    assert set(done.outcomes) == {"ok"} and done.outcomes["ok"] == len(requests(settings))
    # what was in flight at a kill may have been charged without the ledger knowing; it is counted as open
    assert done.account.settled <= PRICE * count["charged"] + 1e-9 <= done.account.settled + done.account.open + 2e-9
