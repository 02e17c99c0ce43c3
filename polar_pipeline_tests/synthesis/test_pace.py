"""The pace: what endpoints say about waiting is understood in every form, and shared by all who ask."""

import email.utils
import time
from pathlib import Path

import pytest

from polar_pipeline.synthesis.pace import Pace, remaining


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
def test_every_way_to_say_it(tmp_path: Path, headers: dict[str, str], seconds: float) -> None:
    pace = Pace(tmp_path / "pace.json")
    assert pace.heed(headers, refused=True) == pytest.approx(seconds)
    assert pace.wait() == pytest.approx(seconds, abs=0.1)


def test_a_date_is_understood(tmp_path: Path) -> None:
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert Pace(tmp_path / "pace.json").heed({"retry-after": date}, refused=True) == pytest.approx(30, abs=1.5)


def test_a_window_that_is_spent_holds_also_after_a_good_answer(tmp_path: Path) -> None:
    pace = Pace(tmp_path / "pace.json")
    pace.heed({"retry-after": "9"}, refused=False)
    assert pace.wait() == 0
    pace.heed({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s"}, refused=False)
    assert 1.8 < pace.wait() <= 2


def test_two_processes_share_it_and_the_longer_wait_holds(tmp_path: Path) -> None:
    one, other = Pace(tmp_path / "pace.json"), Pace(tmp_path / "pace.json")
    one.heed({"retry-after": "5"}, refused=True)
    assert 4.8 < other.wait() <= 5
    other.heed({"retry-after": "1"}, refused=True)
    assert one.wait() > 4.5


def test_no_wait_is_longer_than_ten_minutes(tmp_path: Path) -> None:
    pace = Pace(tmp_path / "pace.json")
    pace.heed({"retry-after": "86400"}, refused=True)
    assert pace.wait() <= 600


@pytest.mark.parametrize("said", ["inf", "nan", "1e999", "-5", "9" * 400, "99999999999999999h"])
def test_what_is_no_time_is_not_waited_for_and_nothing_is_waited_for_longer(tmp_path: Path, said: str) -> None:
    for headers in (
        {"retry-after": said},
        {"retry-after-ms": said},
        {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": said},
        {"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"},
    ):
        pace = Pace(tmp_path / "pace.json")
        assert 0 <= pace.heed(headers, refused=True) <= 600 and 0 <= pace.wait() <= 600


def test_what_is_left_is_understood() -> None:
    assert remaining({"x-ratelimit-remaining-requests": "7"}) == 7
    assert remaining({}) == remaining({"x-ratelimit-remaining-requests": "many"}) == float("inf")
