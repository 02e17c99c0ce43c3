"""The ledger adds up, whatever happens to the processes that write it, and no cap is ever passed."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polar_pipeline.errors import InputError
from polar_pipeline.synthesis.ledger import Budget, Ledger
from polar_pipeline.synthesis.request import Reply

FREE = Budget(None, None)


def reply(key: str, dollars: float = 0.25, outcome: str = "ok") -> Reply:
    return Reply(
        key=key, texts=("a",), outcome=outcome, finish="stop", prompt_tokens=1, completion_tokens=1, dollars=dollars,
        counted=True,
    )  # fmt: skip


def test_what_was_settled_is_there_again(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu", FREE) as ledger:
        reservation = ledger.reserve("k", 1.0)
        assert reservation is not None and ledger.account() == (1, 0.0, 1.0)
        ledger.settle(reservation, reply("k"))
        assert ledger.account() == (1, 0.25, 0.0)
    with Ledger(tmp_path, "deu", FREE) as ledger:
        assert ledger.finished("k") and ledger.replies["k"] == reply("k") and not ledger.finished("other")
        assert ledger.account() == (1, 0.25, 0.0)


def test_unreadable_answers_are_asked_for_once_more_and_refusals_are_answers(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu", FREE) as ledger:
        for expected in (False, True):
            ledger.settle(str(ledger.reserve("k", 1.0)), reply("k", outcome="malformed"))
            assert ledger.finished("k") is expected
        ledger.settle(str(ledger.reserve("r", 1.0)), reply("r", outcome="refused"))
        assert ledger.finished("r")
    with Ledger(tmp_path, "deu", FREE) as ledger:
        assert ledger.finished("k") and ledger.finished("r")


def test_open_reservations_count_at_their_worst_case(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu", Budget(2.0, None)) as ledger:
        assert ledger.reserve("a", 1.5)
        assert ledger.reserve("b", 0.6) is None
        small = ledger.reserve("c", 0.5)
        assert small is not None
        ledger.release(small, "status 429")
        assert ledger.reserve("d", 0.5)
    with Ledger(tmp_path, "eng", Budget(2.0, None)) as other:  # another language, after a process that never settled
        assert other.account().open == pytest.approx(2.0)
        assert other.reserve("e", 0.01) is None


def test_requests_are_capped_too(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu", Budget(None, 2)) as ledger:
        assert [ledger.reserve(key, 0.0) is not None for key in "abc"] == [True, True, False]


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["reserve", "settle", "release"]), st.integers(1, 50)), max_size=40))
def test_no_order_of_events_passes_the_cap(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int]]
) -> None:
    cap, held = 1.0, []
    with Ledger(tmp_path_factory.mktemp("ledger"), "deu", Budget(cap, None)) as ledger:
        for number, (kind, cents) in enumerate(events):
            if kind == "reserve" and (reservation := ledger.reserve(str(number), cents / 100)):
                held.append((reservation, cents / 100))
            elif kind != "reserve" and held:
                reservation, worst = held.pop()
                if kind == "settle":
                    ledger.settle(reservation, reply(str(number), worst / 2))
                else:
                    ledger.release(reservation, "lost", worst)
            account = ledger.account()
            assert account.settled + account.open <= cap + 1e-9


def test_a_torn_last_line_is_cut_off_and_other_damage_is_named(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu", FREE) as ledger:
        ledger.settle(str(ledger.reserve("k", 1.0)), reply("k"))
    path = tmp_path / "deu.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"kind":"reply","reservation":"x","doll')
    with Ledger(tmp_path, "deu", FREE) as ledger:
        assert ledger.finished("k") and ledger.account() == (1, 0.25, 0.0)
    assert path.read_bytes() == whole
    for damage in (b"nonsense", b"5", b'{"kind":"end"}', b'{"kind":"gift","key":"k"}', b'{"kind":"again","key":1}'):
        path.write_bytes(damage + b"\n" + whole)
        for _ in range(2):  # the lock is given back
            with pytest.raises(InputError, match=r"deu\.jsonl has a line that is none of a ledger"):
                Ledger(tmp_path, "deu", FREE).__enter__()


def test_a_file_that_is_moved_away_meanwhile_is_named(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu", FREE) as ledger:
        ledger.account()
        (tmp_path / "deu.jsonl").rename(tmp_path / "deu.away")
        with pytest.raises(InputError, match=r"deu\.jsonl was moved away while it is in use"):
            ledger.account()


def test_useless_answers_may_be_asked_for_again_and_what_they_cost_stays_spent(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu", FREE) as ledger:
        for key, outcome in (("r", "refused"), ("k", "ok")):
            ledger.settle(str(ledger.reserve(key, 1.0)), reply(key, outcome=outcome))
        assert ledger.answers.useless_keys() == ["r"]
        ledger.again("r")
        assert not ledger.finished("r") and ledger.finished("k")
    with Ledger(tmp_path, "deu", FREE) as ledger:
        assert not ledger.finished("r") and ledger.finished("k") and ledger.account() == (2, 0.5, 0.0)
        ledger.settle(str(ledger.reserve("r", 1.0)), reply("r"))
        assert ledger.replies["r"].outcome == "ok"


def test_two_processes_do_not_write_one_file(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu", FREE), pytest.raises(InputError, match="in use by another process"):  # noqa: SIM117
        with Ledger(tmp_path, "deu", FREE):
            pass


def _spend(folder: str, language: str, cap: float) -> None:
    with Ledger(Path(folder), language, Budget(cap, None)) as ledger:
        number = 0
        while (reservation := ledger.reserve(str(number), 0.02)) is not None:
            number += 1
            if number % 3:
                ledger.settle(reservation, reply(str(number), 0.01))


def test_processes_of_two_languages_share_one_cap(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_spend, args=(str(tmp_path), code, 1.0)) for code in ("deu", "eng")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    with Ledger(tmp_path, "hin", FREE) as ledger:
        account = ledger.account()
    assert 0.97 < account.settled + account.open <= 1.0 + 1e-9


@pytest.mark.slow
def test_killed_at_random_moments_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    """A process that settles as fast as it can is killed twenty times; every line it finished stays, each once."""
    context = multiprocessing.get_context("spawn")
    for attempt in range(20):
        worker = context.Process(target=_spend, args=(str(tmp_path), "deu", 1e9))
        worker.start()
        assert worker.pid is not None
        size = (tmp_path / "deu.jsonl").stat().st_size if (tmp_path / "deu.jsonl").exists() else 0
        while not (tmp_path / "deu.jsonl").exists() or (tmp_path / "deu.jsonl").stat().st_size == size:
            time.sleep(0.001)
        time.sleep(0.003 * attempt)
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    lines = [json.loads(line) for line in (tmp_path / "deu.jsonl").read_bytes().splitlines()]
    reserved = [line["reservation"] for line in lines if line["kind"] == "reserve"]
    settled = [line["reservation"] for line in lines if line["kind"] == "reply"]
    assert len(set(reserved)) == len(reserved) and len(set(settled)) == len(settled) and set(settled) <= set(reserved)
    with Ledger(tmp_path, "deu", FREE) as ledger:
        account = ledger.account()
    assert account.requests == len(reserved)
    assert account.settled == pytest.approx(0.01 * len(settled))
    assert account.open == pytest.approx(0.02 * (len(reserved) - len(settled)))
