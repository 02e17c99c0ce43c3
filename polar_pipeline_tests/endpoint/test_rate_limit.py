"""What endpoints say about waiting is understood and shared by processes; the number in flight follows refusals."""

import asyncio
import email.utils
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from polar_pipeline.endpoint.ledger import Ledger
from polar_pipeline.endpoint.rate_limit import RateLimiter


class Memory:
    """A pause that is shared with nobody."""

    moment = 0.0

    def paused_until(self) -> float:
        return self.moment

    def pause_until(self, moment: float) -> None:
        self.moment = max(self.moment, moment)


def limiter_of(concurrency: int, answers: int | None = None) -> RateLimiter:
    """A limiter after so many answers, or as many as it takes to reach its concurrency."""
    limiter = RateLimiter(concurrency, Memory())
    for _ in range(concurrency if answers is None else answers):
        limiter.answered()
    return limiter


def left(requests: int) -> dict[str, str]:
    return {"x-ratelimit-remaining-requests": str(requests)}


@pytest.fixture
def limiter(tmp_path: Path) -> Iterator[RateLimiter]:
    with Ledger(tmp_path, "deu") as ledger:
        yield RateLimiter(8, ledger)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "7", "x-ratelimit-reset-tokens": "20s"}, 0.0),
        ({"retry-after": "soon"}, 0.0),
        ({}, 0.0),
    ],
)
def test_every_way_to_say_it(limiter: RateLimiter, headers: dict[str, str], seconds: float) -> None:
    assert limiter.update(headers, refused=True) == pytest.approx(seconds)
    assert limiter.pause() == pytest.approx(seconds, abs=0.1)


def test_a_date_is_understood(limiter: RateLimiter) -> None:
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert limiter.update({"retry-after": date}, refused=True) == pytest.approx(30, abs=1.5)


def test_a_window_that_is_spent_holds_also_after_a_good_answer(limiter: RateLimiter) -> None:
    limiter.update({"retry-after": "9"}, refused=False)
    assert limiter.pause() == 0
    limiter.update({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s"}, refused=False)
    assert 1.8 < limiter.pause() <= 2


def test_two_processes_share_it_and_the_longer_wait_holds(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu") as first, Ledger(tmp_path, "eng") as second:
        one, other = RateLimiter(8, first), RateLimiter(8, second)
        one.update({"retry-after": "5"}, refused=True)
        assert 4.8 < other.pause() <= 5
        other.update({"retry-after": "1"}, refused=True)
        assert one.pause() > 4.5


def test_no_wait_is_longer_than_ten_minutes(limiter: RateLimiter) -> None:
    limiter.update({"retry-after": "86400"}, refused=True)
    assert limiter.pause() <= 600


@pytest.mark.parametrize("said", ["inf", "nan", "1e999", "-5", "9" * 400, "99999999999999999h"])
def test_what_is_no_time_is_not_waited_for_and_nothing_is_waited_for_longer(said: str) -> None:
    for headers in (
        {"retry-after": said},
        {"retry-after-ms": said},
        {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": said},
        {"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"},
    ):
        limiter = limiter_of(8)
        assert 0 <= limiter.update(headers, refused=True) <= 600 and 0 <= limiter.pause() <= 600


@pytest.mark.parametrize(("said", "limit"), [("7", 7), ("many", 8), ("", 8), ("-3", 8), ("\u0663", 8), ("0", 1)])
def test_what_is_left_is_understood(said: str, limit: int) -> None:
    limiter = limiter_of(8)
    limiter.update({"x-ratelimit-remaining-requests": said}, refused=False)
    assert limiter.limit == limit


def test_a_pause_holds_those_who_have_room_and_gives_it_back_when_they_leave() -> None:
    async def run() -> tuple[float, int]:
        limiter = limiter_of(1)
        limiter.update({"retry-after-ms": "300"}, refused=True)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), limiter:
                pass
        async with limiter:
            return time.monotonic() - started, limiter.limit

    waited, _ = asyncio.run(asyncio.wait_for(run(), 10))
    assert waited >= 0.29


def test_refusals_of_one_burst_halve_it_once_and_answers_raise_it_slowly() -> None:
    limiter = limiter_of(32)
    sent = time.monotonic()
    for _ in range(20):
        limiter.refused(sent)
    assert limiter.limit == 16
    for _ in range(5):
        limiter.refused(time.monotonic())
    assert limiter.limit == 1
    for _ in range(3):
        limiter.answered()
    assert limiter.limit == 2
    limiter.refused(time.monotonic())
    assert limiter.limit == 1
    for _ in range(2000):
        limiter.answered()
    assert limiter.limit == 32


def test_a_refusal_now_and_then_cuts_nothing_and_one_in_five_does() -> None:
    limiter = limiter_of(128)
    for call in range(2000):
        limiter.refused(time.monotonic()) if call % 50 == 49 else limiter.answered()
    assert limiter.limit == 128
    for call in range(1000):
        limiter.refused(time.monotonic()) if call % 5 == 4 else limiter.answered()
    assert limiter.limit < 20


def test_it_begins_with_one_and_grows_with_each_answer_until_refusals() -> None:
    limiter = limiter_of(128, answers=0)
    assert limiter.limit == 1
    for answers in range(1, 14):
        limiter.answered()
        assert limiter.limit == 3 * answers + 1
    for _ in range(6):
        limiter.refused(time.monotonic())
    assert limiter.limit < 40
    before = limiter.limit
    for _ in range(before):  # one round of answers
        limiter.answered()
    assert limiter.limit <= before + 1


def test_what_was_left_is_believed_for_a_while_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    limiter, now = limiter_of(32), time.monotonic()
    limiter.update(left(0) | {"x-ratelimit-reset-requests": "2s"}, refused=False)
    assert limiter.limit == 1
    monkeypatch.setattr(time, "monotonic", lambda: now + 3)
    assert limiter.limit == 32
    limiter.update(left(0), refused=False)  # it does not say how long
    assert limiter.limit == 1
    monkeypatch.setattr(time, "monotonic", lambda: now + 30)
    assert limiter.limit == 32


def test_what_is_left_bounds_it_until_more_is_left() -> None:
    limiter = limiter_of(32)
    limiter.update(left(3), refused=False)
    assert limiter.limit == 3
    limiter.update({}, refused=False)  # an answer that does not say
    assert limiter.limit == 3
    limiter.update(left(0), refused=False)
    assert limiter.limit == 1
    limiter.update(left(500), refused=False)
    assert limiter.limit == 32


def test_no_more_are_in_it_than_allowed() -> None:
    async def run() -> int:
        limiter, inside, most = limiter_of(8), 0, 0
        limiter.update(left(3), refused=False)

        async def one() -> None:
            nonlocal inside, most
            async with limiter:
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0.001)
                inside -= 1

        await asyncio.gather(*(one() for _ in range(40)))
        return most

    assert asyncio.run(asyncio.wait_for(run(), 10)) == 3
