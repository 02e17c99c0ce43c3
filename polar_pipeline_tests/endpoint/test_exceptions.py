"""When nothing succeeds one sentence says so soon, with address or status; a slow endpoint answers all in the end."""

import asyncio
import multiprocessing
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from polar_pipeline.endpoint.ledger import Ledger, read_account
from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.generate import Generated, generate, planned_requests
from polar_pipeline_tests.synthesis import made
from polar_pipeline_tests.synthesis.made import generated as make_posts
from polar_pipeline_tests.synthesis.test_generate import running

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    monkeypatch.setattr("polar_pipeline.endpoint.rate_limit._FIRST_BACKOFF", 0.05)


def ask(settings: SynthesisSettings, folder: Path, code: str = "deu") -> Generated:
    requests = planned_requests(made.make_posts(), code, made.CARD, settings, 0)
    return generate(requests, folder, code, settings, lambda _: None)


def make(settings: SynthesisSettings, folder: Path, say: Callable[[str], None] = lambda _: None) -> int:
    return len(make_posts(made.make_posts(), "deu", made.CARD, settings, 0, folder, say).posts)


def test_an_endpoint_that_is_not_there_costs_nothing_and_is_named(tmp_path: Path) -> None:
    settings = made.settings(base_url=f"http://127.0.0.1:{made.free_port()}/v1", attempts=2)
    with pytest.raises(InputError, match=r"no connection to http://127\.0\.0\.1:\d+/v1 \(.+\): start the endpoint"):
        ask(settings, tmp_path)
    assert read_account(tmp_path) == (0, 0.0, 0.0)


def test_a_name_that_nobody_has_is_the_same(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no connection to http://no-such-host\.invalid"):
        ask(made.settings(base_url="http://no-such-host.invalid/v1", attempts=2), tmp_path)
    assert read_account(tmp_path) == (0, 0.0, 0.0)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "http://", "ftp://x/v1", "http://a b/v1", "http://x:99999/v1"])
def test_an_illegal_address_stops_at_once(tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match="is not the address of an endpoint"):
        ask(made.settings(base_url=url), tmp_path)
    assert read_account(tmp_path) == (0, 0.0, 0.0)


def test_a_key_with_a_newline_is_stripped_and_one_that_no_header_takes_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, {}) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret\n")
        assert ask(made.settings(base_url=server.url), tmp_path / "one").outcomes == {"ok": 10}
        for illegal in ("sk-one\nsk-two", "sk-ключ", "sk one"):
            monkeypatch.setenv("OPENAI_API_KEY", illegal)
            with pytest.raises(InputError, match="OPENAI_API_KEY holds characters that no key has"):
                ask(made.settings(base_url=server.url), tmp_path / "two")
        assert server.get("count")["calls"] == 10


@pytest.mark.parametrize(
    ("fate", "sentence"),
    [
        ("400", r"takes no such request \(status 400, 'no, Bearer \[key\]'\)"),
        ("422", "takes no such request"),
        ("403", "refused the key"),
        ("402", "has no money left"),
        ("quota", r"has no money left \(status 429, 'You exceeded your quota'\)"),
    ],
)
def test_the_same_refusal_again_and_again_stops_with_the_endpoints_words(
    tmp_path: Path, fate: str, sentence: str
) -> None:
    with running(tmp_path, {fate: 1.0}) as server:
        with pytest.raises(InputError, match=sentence) as caught:
            ask(made.settings(base_url=server.url, posts=600, concurrency=2), tmp_path / "ledgers")
        assert server.get("count")["calls"] <= 8
    assert "sk-very-secret" not in str(caught.value)
    assert read_account(tmp_path / "ledgers") == (0, 0.0, 0.0)


def test_useless_answers_of_several_kinds_are_a_failure_together(tmp_path: Path) -> None:
    with running(tmp_path, {"refusal": 0.5, "malformed": 0.5}) as server:
        with pytest.raises(
            InputError, match=r"(refuses|answers without the JSON that response_format asks for to) every request"
        ):
            ask(made.settings(base_url=server.url, posts=1200), tmp_path)
        assert server.get("count")["calls"] < 60


def test_waits_double_from_one_failure_to_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr("polar_pipeline.endpoint.rate_limit.asyncio.sleep", noted)
    with running(tmp_path, {"500": 1.0}) as server, pytest.raises(InputError, match="takes no request"):
        ask(made.settings(base_url=server.url, posts=6, shares=(1, 0, 0), attempts=6), tmp_path)
    backoffs = [wait for wait in waits if wait > 0]
    assert len(backoffs) == 5
    for place, wait in enumerate(backoffs):  # jitter takes away up to half
        assert 0.05 * 2**place / 2 <= wait <= 0.05 * 2**place


def test_a_refusal_among_answers_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, {"400": 0.2, "404": 0.1}) as server:
        done = ask(made.settings(base_url=server.url, posts=180), tmp_path / "ledgers")
    assert done.outcomes["ok"] > done.outcomes["status 400"] > 0 and done.outcomes["status 404"] > 0


def test_an_account_that_runs_dry_ends_it_and_keeps_what_there_is(tmp_path: Path) -> None:
    with running(tmp_path, {"quota": 0.2}) as server:
        done = ask(made.settings(base_url=server.url, posts=180, concurrency=1), tmp_path / "ledgers")
    assert done.outcomes["ok"] > 0 and "has no money left" in done.stopped


@pytest.mark.parametrize(
    ("fate", "how"),
    [
        ("refusal", "10 refused"),
        (
            "malformed",
            '10 malformed; an answer is to be {"posts": .texts.}, as the JSON schema in response_format says',
        ),
    ],
)
def test_useless_answers_alone_are_a_failure_now_and_again_and_another_address_is_asked_anew(
    tmp_path: Path, fate: str, how: str
) -> None:
    with running(tmp_path, {fate: 1.0}) as server:
        settings = made.settings(base_url=server.url)
        for _ in range(2):
            with pytest.raises(InputError, match=rf"no request brought posts \({how}\).*after `polar synth retry"):
                make(settings, tmp_path / "ledgers")
        calls = server.get("count")["calls"]
        assert calls == (10 if fate == "refusal" else 20)
        with pytest.raises(InputError, match=r"every request: change synthesis\.model"):
            ask(settings.model_copy(update={"posts": 1200}), tmp_path / "more")
        assert server.get("count")["calls"] < calls + 70  # of 200 requests
    with running(tmp_path, {}) as server:
        assert make(made.settings(base_url=server.url), tmp_path / "ledgers") == 60


def test_a_slow_endpoint_that_says_when_to_come_back_answers_everything(tmp_path: Path) -> None:
    with running(tmp_path, {}, per_second=5) as server:
        settings = made.settings(base_url=server.url, posts=120, concurrency=16, attempts=2, max_requests=40)
        started = time.monotonic()
        done = ask(settings, tmp_path / "ledgers")
        assert done.outcomes == {"ok": 20} and done.account.requests == 20  # refusals count as no request
        assert server.get("count")["refused"] < 80
    assert time.monotonic() - started < 20


def test_refusals_without_an_end_are_given_up_after_ten_time_outs(tmp_path: Path) -> None:
    with running(tmp_path, {"429_after": 1.0}) as server:
        settings = made.settings(base_url=server.url, timeout=0.05, posts=12)
        with pytest.raises(InputError, match=r"takes no request \(status 429\): run again later"):
            ask(settings, tmp_path / "ledgers")


def test_the_time_out_is_for_the_whole_answer(tmp_path: Path) -> None:
    with running(tmp_path, {"drip": 1.0}) as server:  # a byte every 0.05 s: no read ever takes long
        settings = made.settings(base_url=server.url, posts=6, shares=(1, 0, 0), timeout=0.5, attempts=1)
        started = time.monotonic()
        done = ask(settings, tmp_path / "ledgers")
    assert done.outcomes == {"no answer in time": 1} and done.calls.dollars > 0
    assert time.monotonic() - started < 5


def test_an_endpoint_that_bills_more_than_there_can_be_is_asked_nothing_more(tmp_path: Path) -> None:
    with running(tmp_path, {"dear": 1.0}) as server:
        settings = made.settings(base_url=server.url, posts=300, max_dollars=1.05, concurrency=4)
        done = ask(settings, tmp_path / "ledgers")
        assert "billed more tokens than the request can have" in done.stopped
        assert server.get("count")["calls"] <= 4
        for _ in range(8):  # each sets as much more aside as was billed so far, so the cap holds
            again = ask(settings, tmp_path / "ledgers")
        assert again.account.settled <= 1.05 and "max_dollars" in again.stopped
        assert ask(settings.model_copy(update={"max_dollars": None}), tmp_path / "free").stopped == ""


def test_another_languages_reservations_are_waited_for(tmp_path: Path) -> None:
    with running(tmp_path, {}) as server, Ledger(tmp_path / "ledgers", "eng") as other:
        held = other.reserve("k", 0.05)
        assert held is not None
        settings = made.settings(base_url=server.url, max_dollars=0.05, timeout=5.0)
        timer = threading.Timer(1.0, lambda: other.release(held, "status 429", free=True))
        timer.start()
        done = ask(settings, tmp_path / "ledgers")
        timer.join()
    assert done.outcomes == {"ok": 10} and done.stopped == ""


def test_reservations_that_nobody_settles_end_the_wait_after_a_time_out(tmp_path: Path) -> None:
    with running(tmp_path, {}) as server:
        with Ledger(tmp_path / "ledgers", "eng") as other:
            other.reserve("k", 0.05)
        started = time.monotonic()
        done = ask(made.settings(base_url=server.url, max_dollars=0.05), tmp_path / "ledgers")
    assert done.outcomes == {"unanswered": 10} and "$0.0500 reserved" in done.stopped
    assert 1 <= time.monotonic() - started < 5


def test_a_server_that_dies_and_comes_back_is_gone_on_with(tmp_path: Path) -> None:
    first = made.Running(tmp_path, {}, delay=0.05)
    settings = made.settings(base_url=first.url, posts=600, concurrency=4, attempts=12)
    found: list[Generated] = []
    worker = threading.Thread(target=lambda: found.append(ask(settings, tmp_path / "ledgers")))
    worker.start()
    while first.get("count")["charged"] < 20:
        time.sleep(0.01)
    first.stop()
    with running(tmp_path, {}, port=first.port) as second:
        worker.join(60)
        assert second.get("count")["calls"] < 100  # what was answered before is not asked again
    assert found and found[0].outcomes == {"ok": 100}


def _ask_slow(folder: str, url: str, code: str) -> None:
    settings = made.settings(base_url=url, posts=60, concurrency=8, attempts=2)
    assert ask(settings, Path(folder), code).outcomes == {"ok": 10}


def test_two_processes_keep_to_one_rate_limit(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with running(tmp_path, {}, per_second=5) as server:
        workers = [
            context.Process(target=_ask_slow, args=(str(tmp_path / "ledgers"), server.url, code))
            for code in ("deu", "eng")
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
            assert worker.exitcode == 0
        assert server.get("count")["charged"] == 20 and server.get("count")["refused"] < 60
