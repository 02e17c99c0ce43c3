"""Batches against a real server: everything is answered once at half price, whenever the process is killed."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import openai  # noqa: F401 - forked with the rest
import pytest

from polar_pipeline.endpoint.ledger import read_account
from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.generate import Generated, generate
from polar_pipeline_tests.synthesis import made
from polar_pipeline_tests.synthesis.test_generate import PRICE, key, requests, running  # noqa: F401

pytestmark = pytest.mark.slow


def settings(server: made.Running, **changes: object) -> SynthesisSettings:
    return made.settings(base_url=server.url, batch=True, posts=120, **changes)


def asked(server: made.Running, folder: Path, **changes: object) -> Generated:
    chosen = settings(server, **changes)
    return generate(requests(chosen), folder / "ledgers", "deu", chosen, lambda _: None)


def test_a_batch_is_answered_once_at_half_price(tmp_path: Path) -> None:
    with running(tmp_path, {}) as server:
        done = asked(server, tmp_path)
        again = asked(server, tmp_path)
        count = server.get("count")
    assert set(done.outcomes) == {"ok"} and done.replies == again.replies
    assert count["calls"] == len(done.replies) == done.account.requests
    assert done.account.settled == pytest.approx(0.5 * PRICE * count["charged"]) and done.account.open == 0


@pytest.mark.parametrize("fate", ["500", "429", "malformed", "length", "missing", "inside_429", "inside_500"])
def test_what_goes_wrong_with_single_requests_is_asked_for_again(tmp_path: Path, fate: str) -> None:
    with running(tmp_path, {fate: 0.3}) as server:
        done = asked(server, tmp_path)
        count = server.get("count")
    assert set(done.outcomes) <= {"ok", "malformed", "truncated"} and done.outcomes["ok"] > 0.8 * len(done.replies)
    assert done.account.open == 0 and sum(done.calls.ended.values()) == count["calls"]
    if fate == "missing":  # it may have been worked on
        assert done.account.settled > 0.5 * PRICE * count["charged"]
    else:
        assert done.account.settled == pytest.approx(0.5 * PRICE * count["charged"])


def test_a_batch_whose_making_seemed_to_fail_is_not_made_twice(tmp_path: Path) -> None:
    with running(tmp_path, {"batch_breaks": 0.0}) as server:
        done = asked(server, tmp_path)
        assert server.get("count")["calls"] == len(done.replies)
    assert set(done.outcomes) == {"ok"}


def test_an_expired_batch_costs_nothing_and_goes_out_again(tmp_path: Path) -> None:
    with running(tmp_path, {"batch_expired": 0.0}) as server:
        done = asked(server, tmp_path)
        count = server.get("count")
    assert set(done.outcomes) == {"ok"} and done.calls.ended["batch expired"] == len(done.replies) == count["calls"]
    assert done.account.settled == pytest.approx(0.5 * PRICE * count["charged"])


@pytest.mark.parametrize(
    ("fate", "sentence"),
    [
        ("batch_failed", "could not take the batch .'line 1 is wrong'.: correct what it names, or set synthesis.batch"),
        ("no_batches", "has no batches .status 404.: set synthesis.batch to false"),
    ],
)  # fmt: skip
def test_a_batch_that_is_refused_is_one_sentence_and_costs_nothing(tmp_path: Path, fate: str, sentence: str) -> None:
    with running(tmp_path, {fate: 0.0}) as server, pytest.raises(InputError, match=sentence):
        asked(server, tmp_path)
    assert read_account(tmp_path / "ledgers") == (0, 0.0, 0.0)


def test_the_cap_holds_and_what_there_is_money_for_is_asked(tmp_path: Path) -> None:
    with running(tmp_path, {}) as server:
        done = asked(server, tmp_path, max_requests=7)
        assert server.get("count")["calls"] == 7
    assert done.outcomes == {"ok": 7, "unanswered": len(done.replies) - 7}
    assert done.stopped == "synthesis.max_requests (7) was reached"


def test_what_a_batch_did_not_cost_pays_for_another(tmp_path: Path) -> None:
    with running(tmp_path, {}) as server:
        done = asked(server, tmp_path, max_dollars=0.01)  # room for a few worst cases, and for all that it really costs
        assert set(done.outcomes) == {"ok"} and not done.stopped
        poor = asked(server, tmp_path / "poor", max_dollars=0.0025)
    assert "max_dollars ($0.0025) was reached" in poor.stopped and 0 < poor.outcomes["ok"] < len(poor.replies)
    assert poor.account.settled + poor.account.open <= 0.0025


def test_killed_at_random_moments_nothing_is_lost_or_paid_for_twice(tmp_path: Path) -> None:
    generator = random.Random(0)
    with running(tmp_path, {}, delay=0.5) as server:
        context = multiprocessing.get_context("fork")
        for _ in range(12):
            worker = context.Process(target=asked, args=(server, tmp_path))
            worker.start()
            worker.join(generator.uniform(0.0, 1.6))
            if worker.exitcode is None:
                assert worker.pid is not None
                os.kill(worker.pid, signal.SIGKILL)
            worker.join()
            assert worker.exitcode in (0, -signal.SIGKILL)
        time.sleep(0.1)
        done = asked(server, tmp_path)
        count = server.get("count")
    assert set(done.outcomes) == {"ok"}
    assert count["calls"] == len(done.replies)
    assert done.account.open == 0
    assert done.account.settled == pytest.approx(0.5 * PRICE * count["charged"])
