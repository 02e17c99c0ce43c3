"""The ledger adds up, whatever happens to the processes that write it, and no cap is ever passed."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import sqlite3
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polar_pipeline.endpoint.database import FILE
from polar_pipeline.endpoint.formats import Reply
from polar_pipeline.endpoint.ledger import Account, Budget, Ledger, read_account
from polar_pipeline.errors import EnvironmentProblem, InputError


def reply(key: str, dollars: float = 0.25, outcome: str = "ok", text: str = "a") -> Reply:
    return Reply(
        key=key, texts=(text,), outcome=outcome, finish="stop", prompt_tokens=1, completion_tokens=1, dollars=dollars,
        counted=True,
    )  # fmt: skip


def reserve(ledger: Ledger, key: str, dollars: float = 1.0) -> int:
    call = ledger.reserve(key, dollars)
    assert call is not None
    return call


def fill(folder: Path, posts: int = 1) -> None:
    """Answered requests named k0, k1, ..."""
    with Ledger(folder, "deu") as ledger:
        for number in range(posts):
            ledger.settle(reserve(ledger, f"k{number}"), reply(f"k{number}", text=f"wie immer {number}"))


def test_what_was_settled_is_there_again(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu") as ledger:
        call = reserve(ledger, "k")
        assert ledger.account() == (1, 0.0, 1.0)
        ledger.settle(call, reply("k"))
        assert ledger.account() == (1, 0.25, 0.0)
    with Ledger(tmp_path, "deu") as ledger:
        assert ledger.finished("k") and ledger.replies(["k", "other"]) == {"k": reply("k")}
        assert not ledger.finished("other") and ledger.account() == (1, 0.25, 0.0)
    with Ledger(tmp_path, "eng") as ledger:
        assert not ledger.finished("k") and ledger.account() == (1, 0.25, 0.0)


def test_a_call_ends_once(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu") as ledger:
        call = reserve(ledger, "k")
        ledger.settle(call, reply("k"))
        with pytest.raises(ValueError, match="is not open"):
            ledger.release(call, "status 429")
        assert ledger.account() == (1, 0.25, 0.0)


def test_unreadable_answers_are_asked_for_once_more_and_refusals_are_answers(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu") as ledger:
        for expected in (False, True):
            ledger.settle(reserve(ledger, "k"), reply("k", outcome="malformed"))
            assert ledger.finished("k") is expected
        ledger.settle(reserve(ledger, "r"), reply("r", outcome="refused"))
        assert ledger.finished("r")
    with Ledger(tmp_path, "deu") as ledger:
        assert ledger.outcomes() == {"k": "malformed", "r": "refused"} == ledger.outcomes(["k", "r", "x"])


def test_the_last_answer_counts(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu") as ledger:
        for outcome in ("malformed", "ok"):
            ledger.settle(reserve(ledger, "k"), reply("k", outcome=outcome))
        assert ledger.outcomes() == {"k": "ok"} and ledger.replies(["k"])["k"].outcome == "ok"
        assert ledger.calls(["k"]) == ({"malformed": 1, "ok": 1}, 0.5, 0.0)


def test_open_reservations_count_at_their_worst_case(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu", Budget(2.0)) as ledger:
        reserve(ledger, "a", 1.5)
        assert ledger.reserve("b", 0.6) is None
        ledger.release(reserve(ledger, "c", 0.5), "status 429")
        reserve(ledger, "d", 0.5)
    with Ledger(tmp_path, "eng", Budget(2.0)) as other:  # another language, after a process that never settled
        assert other.account().open == pytest.approx(2.0)
        assert other.reserve("e", 0.01) is None and "max_dollars ($2.0000)" in other.reached_cap(0.01)
        # what another language holds may still be in flight, what this one holds from before is lost
        assert other.reached_cap(0.01, if_all_free=True) == ""
    with Ledger(tmp_path, "deu", Budget(2.0)) as ledger:
        assert ledger.reached_cap(0.01, if_all_free=True) and ledger.calls(["a"]) == ({"no end seen": 1}, 0.0, 1.5)


def test_requests_are_capped_too_and_free_refusals_are_none(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu", Budget(None, 2)) as ledger:
        ledger.release(reserve(ledger, "free", 0.0), "status 429", free=True)
        assert [ledger.reserve(key, 0.0) is not None for key in "abc"] == [True, True, False]


def test_replies_that_cost_more_than_was_reserved_make_later_reservations_larger(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu") as ledger:
        assert not ledger.settle(reserve(ledger, "k", 0.1), reply("k", 0.2))
        reserve(ledger, "l", 0.1)
        assert ledger.account() == (2, 0.2, 0.2)
    with Ledger(tmp_path, "eng") as ledger:
        reserve(ledger, "m", 0.1)
        assert ledger.account().open == 0.4


def test_a_batch_is_reserved_as_a_whole_and_found_again(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu", Budget(None, 2)) as ledger:
        name, calls = ledger.reserve_batch({key: (0.1, f"sent {key}") for key in "abc"})
        assert list(calls) == ["a", "b"] and calls["b"].sent == "sent b"
        assert ledger.reserve_batch({"c": (0.1, "")})[1] == {}
    with Ledger(tmp_path, "deu") as ledger:
        assert ledger.open_batches(["a", "x"]) == {name: calls} and ledger.open_batches(["x"]) == {}
        ledger.settle(calls["a"].id, reply("a"))
        assert ledger.open_batches("a") == {name: {"b": calls["b"]}}  # it is still the batch of both
    with sqlite3.connect(tmp_path / FILE) as database:
        assert database.execute("SELECT sent FROM calls ORDER BY id").fetchall() == [(None,), ("sent b",)]


def test_batches_that_are_given_up_count_at_their_worst_case(tmp_path: Path) -> None:
    for code in ("deu", "eng"):
        with Ledger(tmp_path, code) as ledger:
            ledger.reserve_batch({"a": (0.5, ""), "b": (0.25, "")})
            reserve(ledger, "c")
    with Ledger(tmp_path, "deu") as ledger:
        assert (ledger.give_up_batches(), ledger.give_up_batches()) == (2, 0)
        assert ledger.account() == (6, 0.75, 2.75) and ledger.open_batches("ab") == {} and not ledger.finished("a")
        assert ledger.calls("abc").ended == {"batch given up": 2, "no end seen": 1}


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["reserve", "settle", "release"]), st.integers(1, 50)), max_size=40))
def test_no_order_of_events_passes_the_cap(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int]]
) -> None:
    cap, held = 1.0, []
    with Ledger(tmp_path_factory.mktemp("ledger"), "deu", Budget(cap)) as ledger:
        for number, (kind, cents) in enumerate(events):
            if kind == "reserve" and (call := ledger.reserve(str(number), cents / 100)):
                held.append((call, cents / 100))
            elif kind != "reserve" and held:
                call, worst = held.pop()
                if kind == "settle":
                    ledger.settle(call, reply(str(number), worst / 2))
                else:
                    ledger.release(call, "lost", None)
            account = ledger.account()
            assert account.settled + account.open <= cap
            assert account.open == pytest.approx(sum(worst for _, worst in held))


def test_useless_answers_may_be_asked_for_again_and_what_they_cost_stays_spent(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu") as ledger:
        for key, outcome in (("r", "refused"), ("k", "ok")):
            ledger.settle(reserve(ledger, key), reply(key, outcome=outcome))
        ledger.discard(["r"])
        assert not ledger.finished("r") and ledger.finished("k")
    with Ledger(tmp_path, "deu") as ledger:
        assert not ledger.finished("r") and ledger.finished("k") and ledger.account() == (2, 0.5, 0.0)
        ledger.settle(reserve(ledger, "r"), reply("r"))
        assert ledger.replies(["r"])["r"].outcome == "ok"


def test_two_processes_do_not_write_for_one_language(tmp_path: Path) -> None:
    with Ledger(tmp_path, "deu"), pytest.raises(EnvironmentProblem, match=r"of deu .* is in use by another process"):  # noqa: SIM117
        with Ledger(tmp_path, "deu"):
            pass
    with Ledger(tmp_path, "deu"), Ledger(tmp_path, "deu", read_only=True) as reader:
        assert reader.account() == (0, 0.0, 0.0)


def test_reading_a_ledger_that_does_not_exist_creates_nothing(tmp_path: Path) -> None:
    assert read_account(tmp_path / "home" / "ledgers") == (0, 0.0, 0.0)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("name", ["100%", "what?", "#1 home", "домой %20", "a&b=c;d", "file:x?mode=memory"])
def test_any_path_works_and_answers_are_readable_text(tmp_path: Path, name: str) -> None:
    fill(tmp_path / name)
    with sqlite3.connect(tmp_path / name / FILE) as database:
        ((text,),) = database.execute("SELECT reply FROM calls").fetchall()
    assert json.loads(text)["texts"] == ["wie immer 0"] and list(tmp_path.iterdir()) == [tmp_path / name]


# what can happen to the file


def test_a_database_that_is_moved_away_meanwhile_is_named(tmp_path: Path) -> None:
    fill(tmp_path)
    with Ledger(tmp_path, "deu") as ledger:
        (tmp_path / FILE).rename(tmp_path / "away")
        with pytest.raises(EnvironmentProblem, match=rf"{FILE} was moved away while it is in use: put it back"):
            ledger.reserve("l", 1.0)
        shutil.copy(tmp_path / "away", tmp_path / FILE)  # a copy is not the file that is open
        with pytest.raises(EnvironmentProblem, match="was moved away"):
            ledger.reserve("l", 1.0)


@pytest.mark.parametrize("damage", ["text", "half", "pages", "reply", "cost", "empty table"])
def test_a_damaged_database_is_one_sentence_with_path_and_remedy(tmp_path: Path, damage: str) -> None:
    fill(tmp_path, posts=200)
    path = tmp_path / FILE
    whole = path.read_bytes()
    if damage == "text":
        path.write_bytes(b"nonsense " * 1000)
    elif damage == "half":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "pages":
        path.write_bytes(whole[:8192] + bytes(len(whole) - 8192))
    elif damage == "reply":  # a single flipped bit
        place = whole.index(b"wie immer 77")
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    else:
        with sqlite3.connect(path) as database:
            database.execute("UPDATE calls SET cost = 1 WHERE id = 7" if damage == "cost" else "DROP TABLE calls")
    with pytest.raises(EnvironmentProblem, match=rf"{FILE} is damaged \(.+\): restore a backup of it, or move"):  # noqa: SIM117
        with Ledger(tmp_path, "deu") as ledger:
            ledger.replies([f"k{number}" for number in range(200)])
    with pytest.raises(EnvironmentProblem, match="is damaged"):  # and not in use: the lock was given back
        fill_one(tmp_path)


def fill_one(folder: Path) -> None:
    with Ledger(folder, "deu") as ledger:
        ledger.settle(reserve(ledger, "new"), reply("new"))
        ledger.replies([f"k{number}" for number in range(200)])


def test_a_database_of_the_version_before_is_read_and_brought_up_to_date_when_it_is_written(tmp_path: Path) -> None:
    fill(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as database:
        database.executescript("ALTER TABLE calls DROP COLUMN sent; PRAGMA user_version = 1;")
        database.execute("UPDATE calls SET batch = 'b', cost = NULL, reply = NULL")
        database.execute("UPDATE totals SET settled = 0, open = (SELECT sum(reserved) FROM calls)")
    assert read_account(tmp_path) == (1, 0.0, 1.0)
    with sqlite3.connect(tmp_path / FILE) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
    with Ledger(tmp_path, "deu") as ledger:
        assert ledger.open_batches(["k0"]) == {"b": {"k0": (1, "")}}
        ledger.reserve_batch({"l": (1.0, "sent")})
    assert read_account(tmp_path) == (2, 0.0, 2.0)


def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    fill(tmp_path)
    with sqlite3.connect(tmp_path / FILE) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(EnvironmentProblem, match="was written by a newer version"):
        fill(tmp_path)


@pytest.mark.parametrize(
    ("pragma", "sentence"),
    [
        ("PRAGMA max_page_count = 1", r"cannot be written \(database or disk is full\): free space there"),
        ("PRAGMA query_only = ON", r"cannot be written \(attempt to write a readonly database\): allow it"),
    ],
)
def test_a_full_or_read_only_disk_is_one_sentence_and_what_was_answered_is_kept(
    tmp_path: Path, pragma: str, sentence: str
) -> None:
    fill(tmp_path)
    with Ledger(tmp_path, "deu") as ledger:
        call = reserve(ledger, "l")
        ledger._database.execute(pragma)
        with pytest.raises(EnvironmentProblem, match=rf"{FILE} {sentence}"):
            ledger.settle(call, reply("l", text="lang " * 10_000))
    with Ledger(tmp_path, "deu") as ledger:
        assert ledger.account() == (2, 0.25, 1.0) and ledger.finished("k0") and not ledger.finished("l")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(EnvironmentProblem, match=r"cannot be written .*: allow it, or use another home"):
        fill(tmp_path / "ledgers")


def test_a_file_in_the_place_of_the_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "ledgers").write_text("")
    with pytest.raises(EnvironmentProblem, match=r"ledgers cannot be written \(File exists\)"):
        fill(tmp_path / "ledgers")


@pytest.mark.parametrize("read_only", [False, True])
def test_a_ledger_of_an_older_version_is_named_and_left_alone(tmp_path: Path, read_only: bool) -> None:
    (tmp_path / "deu.jsonl").write_text('{"kind":"again","key":"k"}\n')
    with pytest.raises(InputError, match=r"deu\.jsonl is a ledger of an older version, .*: move it away to begin anew"):  # noqa: SIM117
        with Ledger(tmp_path, "eng", read_only=read_only):
            pass
    assert {path.name for path in tmp_path.iterdir()} <= {"deu.jsonl", "eng.lock"}
    (tmp_path / "deu.jsonl").rename(tmp_path / "deu.jsonl.old")
    fill(tmp_path)
    assert read_account(tmp_path) == (1, 0.25, 0.0)


# many processes


def _spend(folder: str, language: str, cap: float | None, requests: int | None = None) -> None:
    with Ledger(Path(folder), language, Budget(cap, requests)) as ledger:
        number = 0
        while (call := ledger.reserve(str(number), 0.02)) is not None:
            number += 1
            if number % 3:
                ledger.settle(call, reply(str(number), 0.01))


def test_processes_share_a_cap_and_may_create_the_ledger_at_the_same_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    codes = ("deu", "eng", "hin", "amh")
    workers = [context.Process(target=_spend, args=(str(tmp_path), code, 3.0)) for code in codes]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0
    account = read_account(tmp_path)
    assert 2.97 < account.settled + account.open <= 3.0


@pytest.mark.slow
def test_killed_at_random_moments_nothing_is_lost_or_doubled_and_no_cap_is_passed(tmp_path: Path) -> None:
    """Processes of three languages settle as fast as they can, and are killed forty times; then the ledger adds up."""
    context, randomness = multiprocessing.get_context("fork"), random.Random(0)
    cap, requests = 1000.0, 100_000

    def start(code: str) -> multiprocessing.context.ForkProcess:
        worker = context.Process(target=_spend, args=(str(tmp_path), code, cap, requests))
        worker.start()
        return worker

    workers = {code: start(code) for code in ("deu", "eng", "hin")}
    for _ in range(40):
        time.sleep(randomness.random() * 0.06)
        code = randomness.choice(list(workers))
        assert workers[code].is_alive() and workers[code].pid is not None
        os.kill(workers[code].pid, signal.SIGKILL)
        workers[code].join()
        workers[code] = start(code)
    time.sleep(0.2)
    for worker in workers.values():
        worker.kill()
        worker.join()
    account = read_account(tmp_path)
    assert sums(tmp_path) == account and account.requests > 500
    with sqlite3.connect(tmp_path / FILE) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    # what is left of tight caps is used up to the last cent and request by all of them together
    cap = account.settled + account.open + 1.005
    last = [context.Process(target=_spend, args=(str(tmp_path), code, cap)) for code in ("deu", "eng", "hin")]
    for worker in last:
        worker.start()
    for worker in last:
        worker.join(60)
        assert worker.exitcode == 0
    after = read_account(tmp_path)
    assert sums(tmp_path) == after and cap - 0.02 < after.settled + after.open <= cap
    _spend(str(tmp_path), "deu", None, after.requests + 5)
    assert read_account(tmp_path).requests == after.requests + 5


def sums(folder: Path) -> Account:
    """The account from the calls alone: open ones at their worst case, answers at their price."""
    with sqlite3.connect(folder / FILE) as database:
        calls = database.execute("SELECT reserved, cost, reply FROM calls").fetchall()
    answers = [cost for _, cost, text in calls if text]
    assert len(answers) == sum(cost is not None for _, cost, _ in calls)
    reserved = sum(worst for worst, cost, _ in calls if cost is None)
    return Account(len(calls), sum(answers) / 1e12, reserved / 1e12)
