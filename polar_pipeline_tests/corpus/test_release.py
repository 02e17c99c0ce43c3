"""Fetching the release from a server that misbehaves, and finding the data."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from polar_pipeline.corpus.download import DownloadRetries
from polar_pipeline.corpus.release import (
    LICENCE_NOTICE,
    RELEASE_URL,
    fetch_release,
    release_files,
    release_folder,
)
from polar_pipeline.errors import InputError
from polar_pipeline.storage.home import Home
from polar_pipeline.task.languages import LANGUAGES
from polar_pipeline_tests.corpus.server import Answer, Server, serving

QUICK = DownloadRetries(attempts=3, first_wait=0.01, longest_wait=0.05, timeout=5.0)
CONTENT = {f"{split}/eng.csv": f"{split} ".encode() * 5000 for split in ("train", "dev", "test")}
TABLE = {path: hashlib.sha256(content).hexdigest() for path, content in CONTENT.items()}
NAME = "train/eng.csv"
SIZE = len(CONTENT[NAME])


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server(dict(CONTENT))) as running:
        yield running


def fetch(server: Server, target: Path, table: dict[str, str] = TABLE, policy: DownloadRetries = QUICK) -> list[str]:
    """Fetch, check that everything is there and nothing else, and return what was reported."""
    lines: list[str] = []
    paths = fetch_release(target, server.url, lines.append, policy=policy, files=table)
    assert paths == [target / name for name in table]
    assert {name: (target / name).read_bytes() for name in table} == {name: CONTENT[name] for name in table}
    assert left_over(target) == []
    return lines


def left_over(target: Path) -> list[str]:
    """Files that are neither of the release nor the lock."""
    there = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    return sorted(there - set(TABLE) - {".fetch.lock"})


def refusal(server: Server, target: Path, policy: DownloadRetries = QUICK) -> str:
    with pytest.raises(InputError) as caught:
        fetch_release(target, server.url, lambda _: None, policy=policy, files={NAME: TABLE[NAME]})
    return str(caught.value)


def test_everything_is_fetched_once_and_reported(server: Server, tmp_path: Path) -> None:
    lines = fetch(server, tmp_path / "data" / "release")
    assert sorted(server.asked) == sorted((name, None) for name in TABLE)
    assert {line.partition(":")[0] for line in lines} == set(TABLE)
    assert [line.split()[1:5] for line in lines] == [[str(number), "of", "3", "files,"] for number in (1, 2, 3)]
    assert all("files/s" in line for line in lines) and "s left" in lines[0] and "left" not in lines[-1]


def test_what_is_there_is_verified_and_not_asked_for(server: Server, tmp_path: Path) -> None:
    fetch(server, tmp_path)
    server.asked.clear()
    assert fetch(server, tmp_path) == ["3 of 3 files are there and verified"]
    assert server.asked == []


def test_a_file_that_was_changed_is_fetched_again(server: Server, tmp_path: Path) -> None:
    fetch(server, tmp_path)
    (tmp_path / NAME).write_bytes(CONTENT[NAME][:-1])
    server.asked.clear()
    fetch(server, tmp_path)
    assert server.asked == [(NAME, None)]


def test_a_connection_that_drops_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.plans[NAME] = [Answer(stop_after=1000), Answer(stop_after=500)]
    fetch(server, tmp_path)
    assert server.ranges_of(NAME) == [None, None, None]


def test_a_body_that_ends_early_without_a_length_is_fetched_again(server: Server, tmp_path: Path) -> None:
    server.plans[NAME] = [Answer(stop_after=1000, declare_length=False)]
    fetch(server, tmp_path)
    assert server.ranges_of(NAME) == [None, None]


def test_wrong_bytes_once(server: Server, tmp_path: Path) -> None:
    server.plans[NAME] = [Answer(body=b"an error page")]
    fetch(server, tmp_path)
    assert server.ranges_of(NAME) == [None, None]


def test_wrong_bytes_each_time_name_both_checksums(server: Server, tmp_path: Path) -> None:
    wrong = b"an error page"
    server.plans[NAME] = [Answer(body=wrong)] * 9
    message = refusal(server, tmp_path)
    assert f"{server.url}/{NAME}" in message
    assert hashlib.sha256(wrong).hexdigest() in message and f"expected {TABLE[NAME]}" in message
    assert len(server.asked) == QUICK.attempts
    assert not (tmp_path / NAME).exists() and left_over(tmp_path) == []


@pytest.mark.parametrize("status", [404, 403, 410])
def test_what_is_not_there_is_told_at_once(server: Server, tmp_path: Path, status: int) -> None:
    server.plans[NAME] = [Answer(status=status)] * 3
    message = refusal(server, tmp_path)
    assert message.startswith(f"{server.url}/{NAME} answered HTTP {status}") and "POLAR_RELEASE_URL" in message
    assert len(server.asked) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_passing_failure_is_tried_again(server: Server, tmp_path: Path, status: int) -> None:
    server.plans[NAME] = [Answer(status=status)]
    fetch(server, tmp_path)
    assert server.ranges_of(NAME) == [None, None]


@pytest.mark.parametrize(("header", "least"), [("1", 1.0), ("0", 0.0)])
def test_retry_after_is_honoured(server: Server, tmp_path: Path, header: str, least: float) -> None:
    server.plans[NAME] = [Answer(status=429, headers={"Retry-After": header})]
    slow = DownloadRetries(attempts=3, first_wait=30.0, timeout=5.0)
    fetch(server, tmp_path, {NAME: TABLE[NAME]}, slow)
    assert least <= server.times[1] - server.times[0] < least + 1.0


def test_retry_after_may_be_a_date(server: Server, tmp_path: Path) -> None:
    server.plans[NAME] = [Answer(status=503, headers={"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})]
    fetch(server, tmp_path, {NAME: TABLE[NAME]}, DownloadRetries(attempts=3, first_wait=30.0, timeout=5.0))
    assert server.times[1] - server.times[0] < 1.0


def test_retry_after_that_is_nonsense_is_passed_over(server: Server, tmp_path: Path) -> None:
    server.plans[NAME] = [Answer(status=503, headers={"Retry-After": "soon"})]
    fetch(server, tmp_path)
    assert (tmp_path / NAME).read_bytes() == CONTENT[NAME] and [name for name, _ in server.asked].count(NAME) == 2


def test_a_failure_that_does_not_pass_is_one_sentence(server: Server, tmp_path: Path) -> None:
    server.plans[NAME] = [Answer(status=503)] * 9
    message = refusal(server, tmp_path)
    assert "HTTP 503" in message and "fetches only what is missing" in message
    assert len(server.asked) == QUICK.attempts and left_over(tmp_path) == []


def test_a_connection_that_always_drops_is_one_sentence(server: Server, tmp_path: Path) -> None:
    server.plans[NAME] = [Answer(stop_after=1000)] * 9
    message = refusal(server, tmp_path)
    assert message.startswith(f"{server.url}/{NAME} could not be fetched (") and message.endswith("missing.")
    assert len(server.asked) == QUICK.attempts and left_over(tmp_path) == []


def test_one_failure_does_not_undo_the_others(server: Server, tmp_path: Path) -> None:
    server.plans[NAME] = [Answer(status=503)] * 9
    with pytest.raises(InputError):
        fetch_release(tmp_path, server.url, lambda _: None, policy=QUICK, files=TABLE)
    assert {path.name for path in tmp_path.rglob("*.csv")} == {"eng.csv"} and not (tmp_path / NAME).exists()
    assert (tmp_path / "dev/eng.csv").read_bytes() == CONTENT["dev/eng.csv"]


def test_nobody_answers(tmp_path: Path) -> None:
    with serving(Server({})) as gone:
        pass
    message = refusal(gone, tmp_path)
    assert message.startswith(f"{gone.url}/{NAME} could not be fetched") and "check the connection" in message


def test_several_at_once_but_not_too_many(tmp_path: Path) -> None:
    contents = {f"train/{number}.csv": b"x" * number for number in range(24)}
    table = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    with serving(Server(contents, slow=0.05)) as server:
        fetch_release(tmp_path, server.url, lambda _: None, policy=QUICK, files=table)
    assert 1 < server.most_at_once <= 8


@pytest.mark.slow
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGKILL])
def test_a_fetch_that_was_killed_goes_on_with_the_missing_files(tmp_path: Path, kill: signal.Signals) -> None:
    program = (
        "import json, sys; from pathlib import Path; from polar_pipeline.corpus.release import fetch_release\n"
        "fetch_release(Path(sys.argv[1]), sys.argv[2], files=json.loads(sys.argv[3]))"
    )
    with serving(Server(dict(CONTENT))) as server:
        # the others come, this one half, then the server wants to be left alone for long
        server.plans[NAME] = [Answer(stop_after=1000), Answer(status=503, headers={"Retry-After": "600"})]
        command = [sys.executable, "-c", program, str(tmp_path), server.url, json.dumps(TABLE)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        until = time.monotonic() + 60
        while len(server.asked) < 4 and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(kill)
        _, errors = process.communicate(timeout=10)
        assert process.returncode != 0 and (kill == signal.SIGKILL or b"KeyboardInterrupt" in errors)
        assert not (tmp_path / NAME).exists()
        server.plans.clear()
        server.asked.clear()
        fetch(server, tmp_path)
        assert server.asked == [(NAME, None)]


def test_two_fetches_of_one_folder(server: Server, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".fetch.lock"):
        assert "is being fetched by another process" in refusal(server, tmp_path)
    assert server.asked == []


def test_the_address_comes_from_the_environment(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POLAR_RELEASE_URL", server.url + "/")
    fetch_release(tmp_path, say=lambda _: None, policy=QUICK, files=TABLE)
    assert len(server.asked) == 3


def test_an_address_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'ftp://x' should start with https://"):
        fetch_release(tmp_path, "ftp://x", files=TABLE)


def test_the_table_holds_three_files_per_language() -> None:
    table = release_files()
    assert set(table) == {f"{split}/{code}.csv" for split in ("train", "dev", "test") for code in LANGUAGES}
    assert all(len(sha256) == 64 and int(sha256, 16) for sha256 in table.values())
    assert len(set(table.values())) == 66


def test_terms_and_address() -> None:
    for words in ("CC BY 4.0", "CC BY-NC-SA 4.0", "research", "not be passed on", "canary"):
        assert words in LICENCE_NOTICE
    assert RELEASE_URL.startswith("https://") and not RELEASE_URL.endswith("/")


def complete(home: Home) -> None:
    for name in release_files():
        (home.release / name).parent.mkdir(parents=True, exist_ok=True)
        (home.release / name).touch()


def test_data_dir_goes_first(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    complete(home)
    (tmp_path / "mine" / "train").mkdir(parents=True)
    assert release_folder(home, {"POLAR_DATA_DIR": str(tmp_path / "mine")}) == tmp_path / "mine"
    assert release_folder(home, {}) == release_folder(home, {"POLAR_DATA_DIR": ""}) == home.release


def test_a_data_dir_without_train(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"POLAR_DATA_DIR\) is .*none, which is not a folder with train/"):
        release_folder(Home(tmp_path), {"POLAR_DATA_DIR": str(tmp_path / "none")})


def test_no_release_names_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"has no release yet: run `polar data fetch`, .*POLAR_DATA_DIR.*--profile demo"
    ):
        release_folder(Home(tmp_path), {})


def test_half_a_release_is_none(tmp_path: Path) -> None:
    home = Home(tmp_path)
    complete(home)
    (home.release / "test" / "zho.csv").unlink()
    with pytest.raises(InputError, match="has 65 of the release's 66 files"):
        release_folder(home, {})
