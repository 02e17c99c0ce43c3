"""Who works in a home: one writer for each profile, and one user interface.

Each holds a file lock, which the kernel releases when the process ends, however it ends. A small JSON beside the lock
says whose it is. Only the lock counts: what a killed process left blocks nobody, also on a disk of several hosts.
"""

import functools
import json
import os
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import psutil
from filelock import FileLock, Timeout

from polar_pipeline.errors import EnvironmentProblem
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.storage.home import Home

_UI = "ui"
_WAIT = 1.0  # seconds; `who_works` holds a lock for an instant to see whether it is free


@dataclass(frozen=True)
class Worker:
    """A process that works in a home. `process`, its start, tells it from a later one with the same pid."""

    command: str
    profile: str
    pid: int
    host: str
    machine: str
    process: str
    since: str

    @classmethod
    def here(cls, command: str, profile: str) -> "Worker":
        """The process that asks."""
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        start = process_start(os.getpid()) or ""
        return cls(command, profile, os.getpid(), socket.gethostname(), machine(), start, now)

    def __str__(self) -> str:
        """As messages name it."""
        profile = f" with profile {self.profile}" if self.profile else ""
        return f"{self.command}{profile}, process {self.pid} on {self.host}, since {self.since}"


def writing(home: Home, profile: str) -> AbstractContextManager[None]:
    """Be the one writer of a profile in this home.

    Raises EnvironmentProblem, which names the other one, while there is another.
    """
    return _held(home, f"run-{quote(profile, safe='')}", Worker.here("polar run", profile))


def serving(home: Home, profile: str) -> AbstractContextManager[None]:
    """Be the one user interface over this home. Raises EnvironmentProblem as `writing` does."""
    return _held(home, _UI, Worker.here("polar ui", profile))


@contextmanager
def maintaining(home: Home, command: str) -> Iterator[None]:
    """Be the only one that works in this home. Raises EnvironmentProblem, naming another one, while there is one.

    Others that start meanwhile wait before they open the databases.
    """
    with creating(home):
        if others := who_works(home):
            raise EnvironmentProblem(f"{home.root} is in use by {others[0]}: wait until it has ended or end it.")
        with _held(home, "maintenance", Worker.here(command, "")):
            yield


def creating(home: Home) -> FileLock:
    """Wait until no other process makes or migrates the databases of this home, and keep others waiting meanwhile."""
    return _lock(home, "create")


def who_works(home: Home) -> list[Worker]:
    """The processes that work in a home now, on other hosts too if the disk shares locks. Writes nothing."""
    folder = _folder(home)
    names = sorted(file.stem for file in folder.glob("*.json")) if folder.is_dir() else []
    return [
        worker for name in names if _is_held(folder / f"{name}.lock") and (worker := _read(folder / f"{name}.json"))
    ]


def ui_was_killed(home: Home) -> bool:
    """Whether the last user interface over this home left its JSON behind and is gone."""
    folder = _folder(home)
    return (folder / f"{_UI}.json").exists() and not _is_held(folder / f"{_UI}.lock")


@functools.cache
def machine() -> str:
    """The scope in which a pid is unique: the machine's boot id and its pid namespace (containers have one each)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return socket.gethostname()


def process_start(pid: int) -> str | None:
    """When a process of this machine started, in a form to compare; None if it has ended (as a zombie has)."""
    try:
        # clock ticks since boot: unlike the time of day, they do not move when the clock is set
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        pass
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.NoSuchProcess:
        return None


def _folder(home: Home) -> Path:
    return home.root / "locks"


def _lock(home: Home, name: str) -> FileLock:
    """A lock of this home. Raises EnvironmentProblem if the home cannot be written."""
    path = _folder(home) / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise EnvironmentProblem(
            f"the home {home.root} cannot be written ({error.strerror}): allow it, or use another home (--home)."
        ) from error
    return FileLock(path)


@contextmanager
def _held(home: Home, name: str, worker: Worker) -> Iterator[None]:
    lock, note = _lock(home, name), _folder(home) / f"{name}.json"
    try:
        lock.acquire(timeout=_WAIT)
    except Timeout:
        other = _read(note) or "another process"
        raise EnvironmentProblem(
            f"{home.root} is in use by {other}: wait until it has ended or end it, or use another home."
        ) from None
    try:
        write_atomic(note, json.dumps(asdict(worker), indent=1).encode())
        yield
    finally:
        note.unlink(missing_ok=True)
        lock.release()


def _is_held(path: Path) -> bool:
    import fcntl

    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _read(note: Path) -> Worker | None:
    try:
        return Worker(**json.loads(note.read_bytes()))
    except (OSError, ValueError, TypeError):  # gone meanwhile, or of another version
        return None
