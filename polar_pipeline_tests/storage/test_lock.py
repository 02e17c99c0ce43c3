"""Who works in a home: locks of real processes, some of which are killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from polar_pipeline.errors import InputError
from polar_pipeline.storage.home import Home
from polar_pipeline.storage.lock import Worker, process_start, serving, ui_was_killed, who_works, writing

HOLD = """
import sys, time
from pathlib import Path
from polar_pipeline.storage.home import Home
from polar_pipeline.storage import lock
with getattr(lock, sys.argv[1])(Home(Path(sys.argv[2])), sys.argv[3]):
    print("held", flush=True)
    time.sleep(120)
"""


@contextmanager
def holder(how: str, home: Home, profile: str) -> Iterator["subprocess.Popen[str]"]:
    """Another process that works in `home`."""
    command = [sys.executable, "-c", HOLD, how, str(home.root), profile]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_a_second_writer_of_a_profile_is_refused_and_told_who_the_first_is(home: Home) -> None:
    with holder("writing", home, "cpu") as other:
        (worker,) = who_works(home)
        assert (worker.command, worker.profile, worker.pid) == ("polar run", "cpu", other.pid)
        with (
            pytest.raises(
                InputError, match=rf"in use by polar run with profile cpu, process {other.pid} on .*, since \d{{4}}"
            ),
            writing(home, "cpu"),
        ):
            pass
        with writing(home, "laptop"), serving(home, "cpu"):
            assert {entry.profile for entry in who_works(home)} == {"cpu", "laptop"} and len(who_works(home)) == 3
    assert who_works(home) == []


def test_a_second_user_interface_is_refused(home: Home) -> None:
    with holder("serving", home, "cpu") as other:
        message = f"in use by polar ui with profile cpu, process {other.pid} on"
        with pytest.raises(InputError, match=message), serving(home, "laptop"):
            pass
        assert not ui_was_killed(home)


def test_a_killed_process_blocks_nobody(home: Home) -> None:
    with holder("serving", home, "cpu") as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert (home.root / "locks" / "ui.json").exists() and ui_was_killed(home) and who_works(home) == []
        with serving(home, "cpu"):
            assert [worker.pid for worker in who_works(home)] == [os.getpid()]
    assert not ui_was_killed(home)


def test_what_another_host_left_behind_blocks_nobody(home: Home) -> None:
    with writing(home, "cpu"):
        note = home.root / "locks" / "run-cpu.json"
        left = json.loads(note.read_text()) | {"host": "elsewhere", "machine": "another boot", "pid": 1}
    note.write_text(json.dumps(left))
    assert who_works(home) == []
    with writing(home, "cpu"):
        pass


def test_a_damaged_note_is_nobody_s_and_blocks_nobody(home: Home) -> None:
    with writing(home, "cpu"):
        (home.root / "locks" / "run-cpu.json").write_text("{")
        assert who_works(home) == []
        with pytest.raises(InputError, match="in use by another process"), writing(home, "cpu"):
            pass


@pytest.mark.parametrize("profile", ["a/../../b", "größer %?#", ".."])
def test_any_name_of_a_profile_stays_below_the_home(home: Home, profile: str) -> None:
    with writing(home, profile):
        assert [worker.profile for worker in who_works(home)] == [profile]
        assert {file.parent for file in home.root.rglob("*") if file.is_file()} == {home.root / "locks"}
    assert {file.name for file in home.root.parent.iterdir()} == {"home"}


def test_a_process_is_known_by_its_start_and_a_zombie_has_ended(home: Home) -> None:
    assert process_start(os.getpid()) == process_start(os.getpid()) == Worker.here("polar run", "cpu").process
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    try:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has asked how
        assert process_start(process.pid) is None
    finally:
        process.wait()
    assert process_start(process.pid) is None
