"""A plan that was killed goes on with or without batches, and the ledger has what the server's own books have."""

import json
import multiprocessing
import os
import random
import signal
import sqlite3
import time
import urllib.request
from collections.abc import Callable
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import openai  # noqa: F401 - forked with the rest
import pytest

from polar_pipeline.endpoint.database import FILE
from polar_pipeline.endpoint.formats import Reply, worst_dollars
from polar_pipeline.endpoint.ledger import Ledger, read_account
from polar_pipeline.errors import InputError
from polar_pipeline.synthesis.generate import Generated, generate
from polar_pipeline_tests.endpoint.server import COMPLETION, PROMPT
from polar_pipeline_tests.synthesis import made
from polar_pipeline_tests.synthesis.test_generate import key, requests, running  # noqa: F401

pytestmark = pytest.mark.slow
ONLINE = (PROMPT + COMPLETION) * 10**6  # picodollars of an answer, at a dollar per million tokens
BATCHED = ONLINE // 2
BOTH = pytest.mark.parametrize("batch", [False, True])


def asked(url: str, folder: Path, said: list[str] | None = None, **changes: Any) -> Generated:
    settings = made.settings(**{"base_url": url, "posts": 120} | changes)
    say = said.append if said is not None else lambda _: None
    return generate(requests(settings), folder / "ledgers", "deu", settings, say)


def start(url: str, folder: Path, **changes: Any) -> ForkProcess:
    worker = multiprocessing.get_context("fork").Process(target=asked, args=(url, folder), kwargs=changes)
    worker.start()
    return worker


def kill(worker: ForkProcess) -> None:
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()


def kill_when(seen: Callable[[], object], worker: ForkProcess) -> None:
    end = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < end and worker.is_alive()
        time.sleep(0.01)
    kill(worker)


def jobs(server: made.Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.get("v1/batches")["data"]
    return found


def killed_in_a_batch(server: made.Running, folder: Path, **changes: Any) -> None:
    kill_when(lambda: jobs(server), start(server.url, folder, batch=True, **changes))


def books(folder: Path) -> tuple[int, int, int, int]:
    """Replies of batches and of single calls, picodollars of all replies, open calls."""
    with sqlite3.connect(folder / "ledgers" / FILE) as database:
        row = database.execute(
            "SELECT coalesce(sum(reply IS NOT NULL AND batch IS NOT NULL), 0), "
            "coalesce(sum(reply IS NOT NULL AND batch IS NULL), 0), "
            "coalesce(sum(iif(reply IS NULL, 0, cost)), 0), coalesce(sum(cost IS NULL), 0) FROM calls"
        ).fetchone()
    return tuple(row)  # type: ignore[return-value]


def answered_twice(server: made.Running) -> int:
    good = [json.dumps(body, sort_keys=True) for body in server.get("answered")]
    return len(good) - len(set(good))


# a killed batch


def test_a_killed_batch_is_waited_for_without_batches_and_has_its_price(tmp_path: Path) -> None:
    said: list[str] = []
    with running(tmp_path, {}, delay=2.5) as server:
        killed_in_a_batch(server, tmp_path)
        assert server.get("count")["calls"] == 0  # it is still running
        done = asked(server.url, tmp_path, said)
        count, twice = server.get("count"), answered_twice(server)
    size = len(done.replies)
    assert done.outcomes == {"ok": size} and (count["calls"], count["batched"], twice) == (size, size, 0)
    assert books(tmp_path) == (size, 0, size * BATCHED, 0)
    assert done.account.settled == size * BATCHED / 1e12 and done.account.open == 0
    assert said[0] == f"deu: {size} requests are in a batch of an earlier run, which is waited for"
    assert any("in_progress" in line for line in said[1:])


def test_a_batch_that_was_never_made_costs_nothing(tmp_path: Path) -> None:
    with running(tmp_path, {}, delay=0.0) as server:
        plan = requests(made.settings(base_url=server.url, posts=120))
        with Ledger(tmp_path / "ledgers", "deu") as ledger:  # killed before it was sent
            ledger.reserve_batch({request.key: (0.01, "") for request in plan})
        done = asked(server.url, tmp_path)
        assert server.get("count")["calls"] == len(plan)
    assert books(tmp_path) == (0, len(plan), len(plan) * ONLINE, 0)
    assert done.calls.ended == {"ok": len(plan), "never sent": len(plan)} and done.account.requests == len(plan)


def test_what_a_batch_could_not_answer_is_asked_one_by_one(tmp_path: Path) -> None:
    with running(tmp_path, {"500": 0.3, "malformed": 0.2}) as server:
        killed_in_a_batch(server, tmp_path)
        done = asked(server.url, tmp_path, attempts=12)
        count = server.get("count")
    batched, online, paid, left = books(tmp_path)
    assert (batched, online, left) == (count["batched"], count["charged"] - count["batched"], 0)
    assert online > 0 and paid == batched * BATCHED + online * ONLINE
    assert done.outcomes["ok"] > 0.5 * len(done.replies) and set(done.outcomes) <= {"ok", "malformed"}


def test_a_failed_batch_is_asked_one_by_one(tmp_path: Path) -> None:
    with running(tmp_path, {"batch_failed": 0.0}, delay=0.5) as server:
        killed_in_a_batch(server, tmp_path)
        done = asked(server.url, tmp_path)
        assert server.get("count") == {"calls": 20, "charged": 20, "batched": 0, "posts": 120}
    assert books(tmp_path) == (0, 20, 20 * ONLINE, 0) and done.calls.ended == {"ok": 20, "batch failed": 20}


def test_a_batch_that_is_cancelled_gives_what_it_has(tmp_path: Path) -> None:
    with running(tmp_path, {}, delay=60.0) as server:
        killed_in_a_batch(server, tmp_path)
        address = f"{server.url}/batches/{jobs(server)[0]['id']}/cancel"
        urllib.request.urlopen(urllib.request.Request(address, method="POST"), timeout=10).close()
        done = asked(server.url, tmp_path, batch=True, max_requests=10)
        assert done.calls.ended == {"ok": 10, "batch cancelled": 10} and "max_requests" in done.stopped
    assert books(tmp_path) == (10, 0, 10 * BATCHED, 0) and done.account.requests == 10


def test_a_batch_has_the_prices_that_it_was_sent_at(tmp_path: Path) -> None:
    with running(tmp_path, {}, delay=0.5) as server:
        killed_in_a_batch(server, tmp_path)
        dear = {"price_prompt": 70.0, "price_completion": 90.0, "price_batch": 1.0, "max_dollars": 100.0}
        done = asked(server.url, tmp_path, **dear)
    assert books(tmp_path) == (20, 0, 20 * BATCHED, 0) and not done.stopped
    with sqlite3.connect(tmp_path / "ledgers" / FILE) as database:
        assert database.execute("SELECT excess FROM totals").fetchone() == (1.0,)


# a plan of another size


@BOTH
def test_a_plan_that_has_grown_asks_only_for_what_is_new(tmp_path: Path, batch: bool) -> None:
    with running(tmp_path, {}, delay=0.3) as server:
        killed_in_a_batch(server, tmp_path)
        done = asked(server.url, tmp_path, posts=240, batch=batch)
        count = server.get("count")
    plans = [{request.key for request in requests(made.settings(base_url=server.url, posts=n))} for n in (120, 240)]
    both, new = len(plans[0] | plans[1]), len(plans[1] - plans[0])
    assert done.outcomes == {"ok": len(plans[1])} and count["calls"] == both
    assert books(tmp_path) == ((both, 0, both * BATCHED, 0) if batch else (20, new, 20 * BATCHED + new * ONLINE, 0))


@BOTH
def test_a_plan_that_has_shrunk_keeps_the_answers_that_it_does_not_need(tmp_path: Path, batch: bool) -> None:
    with running(tmp_path, {}, delay=0.3) as server:
        killed_in_a_batch(server, tmp_path)
        done = asked(server.url, tmp_path, posts=60, batch=batch)
        small = requests(made.settings(base_url=server.url, posts=60))
        large = requests(made.settings(base_url=server.url, posts=120))
        new = len({request.key for request in small} - {request.key for request in large})
        paid = 20 * BATCHED + new * (BATCHED if batch else ONLINE)
        assert done.outcomes == {"ok": 10} and books(tmp_path)[2:] == (paid, 0)
        again = asked(server.url, tmp_path, batch=batch)  # nothing of which has to be asked
        assert server.get("count")["calls"] == 20 + new
    assert again.outcomes == {"ok": 20} and again.account.settled == paid / 1e12


def test_requests_that_nobody_knows_stay_open_until_their_plan_is_back(tmp_path: Path) -> None:
    with running(tmp_path, {}) as server:
        killed_in_a_batch(server, tmp_path)
        with sqlite3.connect(tmp_path / "ledgers" / FILE) as database:  # as older versions left it
            database.execute("UPDATE calls SET sent = NULL")
        small = {request.key for request in requests(made.settings(base_url=server.url, posts=60))}
        large = {request.key: request for request in requests(made.settings(base_url=server.url, posts=120))}
        known, settings = len(small & set(large)), made.settings(batch=True)
        done = asked(server.url, tmp_path, posts=60, batch=True)
        left = [worst_dollars(request, settings) for name, request in large.items() if name not in small]
        assert done.outcomes == {"ok": 10} and books(tmp_path)[3] == 20 - known == len(left)
        assert done.account.open == pytest.approx(sum(left), rel=1e-12)
        done = asked(server.url, tmp_path)
        assert server.get("count")["calls"] == 20 + len(small - set(large))
    assert done.outcomes == {"ok": 20} and done.account.open == 0 and books(tmp_path)[1] == 0


# an endpoint that has changed


@BOTH
def test_an_endpoint_without_batches_is_one_sentence_and_the_batch_can_be_given_up(tmp_path: Path, batch: bool) -> None:
    with running(tmp_path, {}, delay=60.0) as server:
        killed_in_a_batch(server, tmp_path)
    worst = read_account(tmp_path / "ledgers").open
    with running(tmp_path, {"no_batches": 0.0}, port=server.port) as server:
        sentence = (
            r"does not have the batch in which an earlier run left 20 requests: start the one .* retry --open-batches`"
        )
        with pytest.raises(InputError, match=sentence):
            asked(server.url, tmp_path, batch=batch)
        assert server.get("count")["calls"] == 0 and read_account(tmp_path / "ledgers") == (20, 0.0, worst)
        with Ledger(tmp_path / "ledgers", "deu") as ledger:
            assert ledger.give_up_batches() == 20
        if not batch:
            done = asked(server.url, tmp_path)
            assert done.outcomes == {"ok": 20} and server.get("count")["calls"] == 20
            assert done.account == (40, pytest.approx(worst + 20 * ONLINE / 1e12, rel=1e-12), 0.0)


def test_a_batch_whose_making_seemed_to_fail_stays_open_when_nobody_can_look_for_it(tmp_path: Path) -> None:
    with running(tmp_path, {"batch_breaks": 0.0, "lists_refused": 0.0}, delay=0.3) as server:
        with pytest.raises(InputError, match="refused the key"):
            asked(server.url, tmp_path, batch=True)
        assert len(jobs(server)) == 1 and books(tmp_path)[3] == 20
        done = asked(server.url, tmp_path)
        assert server.get("count")["calls"] == 20
    assert done.outcomes == {"ok": 20} and books(tmp_path) == (20, 0, 20 * BATCHED, 0)


def test_a_batch_under_the_key_of_another_account_is_not_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, {}, delay=60.0) as server:
        killed_in_a_batch(server, tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-project")
    with running(tmp_path, {}, port=server.port) as server:  # which knows no batch
        with pytest.raises(InputError, match="use the key that it was sent with"):
            asked(server.url, tmp_path)
        assert server.get("count")["calls"] == 0 and books(tmp_path)[3] == 20
        monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")  # the same account, so it was never made
        assert asked(server.url, tmp_path).outcomes == {"ok": 20}


def test_a_batch_of_requests_that_are_answered_is_collected_all_the_same(tmp_path: Path) -> None:
    with running(tmp_path, {}) as server:
        killed_in_a_batch(server, tmp_path)
        with Ledger(tmp_path / "ledgers", "deu") as ledger:
            for request in requests(made.settings(base_url=server.url, posts=120)):
                call = ledger.reserve(request.key, 1.0)
                assert call is not None
                ledger.settle(call, Reply(key=request.key, texts=(), outcome="refused", finish="stop", counted=True,
                                          prompt_tokens=0, completion_tokens=0, dollars=0.0))  # fmt: skip
        assert asked(server.url, tmp_path).account.open == 0 and books(tmp_path) == (20, 20, 20 * BATCHED, 0)


# drills


def test_killed_online_and_resumed_as_batches_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    with running(tmp_path, {}, delay=0.1) as server:
        plan = requests(made.settings(base_url=server.url, posts=600))
        online = start(server.url, tmp_path, posts=600, concurrency=4)
        kill_when(lambda: server.get("count")["charged"] > 20, online)
        time.sleep(0.3)  # the server ends what it has in hand
        _, before, paid, lost = books(tmp_path)
        charged = server.get("count")["charged"]
        assert 0 < before <= charged <= before + lost and 0 < lost <= 4
        worst = read_account(tmp_path / "ledgers").open
        done = asked(server.url, tmp_path, posts=600, batch=True)
        count, twice = server.get("count"), answered_twice(server)
    rest = len(plan) - before
    assert done.outcomes == {"ok": len(plan)} and count["batched"] == rest and count["charged"] == charged + rest
    assert books(tmp_path) == (rest, before, paid + rest * BATCHED, lost) and paid == before * ONLINE
    assert done.account.open == worst and twice == charged - before <= lost


@pytest.mark.parametrize("last", [False, True])
def test_killed_at_random_moments_with_and_without_batches_the_books_agree(
    tmp_path: Path, last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other run asks in batches, and the plan grows."""
    monkeypatch.setattr("polar_pipeline.endpoint.batch._FIRST_POLL", 0.05)  # forked with the rest
    generator = random.Random(int(last))
    with running(tmp_path, {"500": 0.05, "429": 0.05}, delay=0.15) as server:
        for place in range(16):
            changes = {"posts": 120 * (place // 2 + 1), "concurrency": 4, "batch": place % 2 == 1}
            worker = start(server.url, tmp_path, **changes)
            before, end = server.get("count")["calls"] + len(jobs(server)), time.monotonic() + 3
            while worker.exitcode is None and time.monotonic() < end:  # until something happens
                if server.get("count")["calls"] + len(jobs(server)) > before:
                    break
            worker.join(generator.uniform(0.0, 0.6))
            if worker.exitcode is None:
                kill(worker)
            assert worker.exitcode in (0, -signal.SIGKILL)
        time.sleep(0.4)
        done = asked(server.url, tmp_path, posts=1000, batch=last, attempts=12)
        count, twice = server.get("count"), answered_twice(server)
    batched, online, paid, lost = books(tmp_path)
    assert done.outcomes == {"ok": len(done.replies)} and batched + online == len(done.replies)
    assert min(batched, online) > 0
    assert batched == count["batched"]  # to the last one, whenever the process was killed
    assert paid == batched * BATCHED + online * ONLINE
    assert online <= count["charged"] - count["batched"] <= online + lost and twice <= lost
    assert round(done.account.settled * 1e12) >= paid and (done.account.open > 0) == (lost > 0)
