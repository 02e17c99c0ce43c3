"""Downloading files of which the sha256 is known: concurrent, resumable, and in place only once verified.

An unfinished file lies beside its place as `<name>.part` and is continued by the next attempt, or the next run. What does
not belong here: which files there are and where from (release.py).
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple, Protocol

import httpx
import tenacity

from polar_pipeline.errors import InputError
from polar_pipeline.storage.fingerprint import file_sha256

AT_ONCE = 8
PASSING_STATUS = frozenset({408, 425, 429, *range(500, 600)})


class RemoteFile(NamedTuple):
    """A file to fetch: its address, where it goes, and the sha256 that its bytes must have."""

    url: str
    path: Path
    sha256: str

    @property
    def part(self) -> Path:
        """Where its bytes gather until they are complete."""
        return self.path.with_name(f"{self.path.name}.part")


@dataclass(frozen=True)
class Patience:
    """When a failed request is tried again, and when no more; times in seconds.

    `attempts` counts those in a row that brought nothing new; `longest_asked` bounds what a server may ask for.
    """

    attempts: int = 6
    first_wait: float = 1.0
    longest_wait: float = 60.0
    longest_asked: float = 900.0
    timeout: float = 30.0


class Watch(Protocol):
    """What is told while files come in."""

    def on_bytes(self, count: int) -> None:
        """So many bytes arrived."""

    def on_file(self, path: Path) -> None:
        """A file is verified and in place."""


class _Passing(Exception):
    """A failure that may be gone in a moment; `wait` is how many seconds the server asks for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


async def download(files: list[RemoteFile], patience: Patience, watch: Watch) -> None:
    """Fetch and verify `files`, at most `AT_ONCE` at a time. What was fetched stays when one of them fails.

    Raises InputError that names the file or address and the remedy: not found, wrong bytes twice, or no answer.
    """
    gate = asyncio.Semaphore(AT_ONCE)
    # plain bytes, because a Range counts those of the compressed form when the server may compress
    async with httpx.AsyncClient(
        timeout=patience.timeout, follow_redirects=True, headers={"Accept-Encoding": "identity"}
    ) as client:

        async def fetch(file: RemoteFile) -> None:
            async with gate:
                await _fetch_verified(client, file, patience, watch)

        try:
            async with asyncio.TaskGroup() as tasks:
                for file in files:
                    tasks.create_task(fetch(file))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None


async def _fetch_verified(client: httpx.AsyncClient, file: RemoteFile, patience: Patience, watch: Watch) -> None:
    """One file, in place once its bytes are right. Wrong ones are fetched once more, from the first byte."""
    file.path.parent.mkdir(parents=True, exist_ok=True)
    found = ""
    for _ in range(2):
        await _fetch(client, file, patience, watch)
        found = file_sha256(file.part)
        if found == file.sha256:
            file.part.replace(file.path)
            watch.on_file(file.path)
            return
        file.part.unlink()
    raise InputError(
        f"{file.url} is not the file of the release: its sha256 is {found}, expected {file.sha256}; "
        "check that POLAR_RELEASE_URL points at the right commit and that no proxy alters downloads."
    )


async def _fetch(client: httpx.AsyncClient, file: RemoteFile, patience: Patience, watch: Watch) -> None:
    """Gather a file's bytes in its part file, trying again as long as `patience` allows."""
    backoff = tenacity.wait_exponential_jitter(
        initial=patience.first_wait, max=patience.longest_wait, jitter=patience.first_wait
    )

    def wait(state: tenacity.RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked = failure.wait if isinstance(failure, _Passing) else None
        return backoff(state) if asked is None else min(asked, patience.longest_asked)

    attempts = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(_Passing),
        stop=_stop_without_progress(file, patience.attempts),
        wait=wait,
        reraise=True,
    )
    try:
        async for attempt in attempts:
            with attempt:
                await _attempt(client, file, watch)
    except _Passing as failure:
        raise InputError(
            f"{file.url} could not be fetched, the last {patience.attempts} attempts brought nothing ({failure}): "
            "check the connection and run the command again, it goes on where it stopped."
        ) from None


def _stop_without_progress(file: RemoteFile, attempts: int) -> Callable[[tenacity.RetryCallState], bool]:
    """Stop after so many attempts in a row that did not make the part file longer than it ever was."""
    longest, barren = _size(file.part), 0

    def stop(_: tenacity.RetryCallState) -> bool:
        nonlocal longest, barren
        size = _size(file.part)
        barren = 0 if size > longest else barren + 1
        longest = max(longest, size)
        return barren >= attempts

    return stop


async def _attempt(client: httpx.AsyncClient, file: RemoteFile, watch: Watch) -> None:
    """One request: the bytes from where the part file ends, or all of them when the server knows no ranges."""
    start = _size(file.part)
    if start and file_sha256(file.part) == file.sha256:
        return  # complete, but stopped before it was renamed: there is nothing after its end to ask for
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        async with client.stream("GET", file.url, headers=headers) as response:
            _refuse(response, file, start)
            with file.part.open("ab" if response.status_code == 206 else "wb") as part:
                async for piece in response.aiter_raw():
                    part.write(piece)
                    watch.on_bytes(len(piece))
                part.flush()
                os.fsync(part.fileno())
    except httpx.RequestError as error:
        raise _Passing(str(error) or type(error).__name__) from None


def _refuse(response: httpx.Response, file: RemoteFile, start: int) -> None:
    """Raise for every answer that does not bring the bytes from `start` or from 0: `_Passing` where asking again may help."""
    status = response.status_code
    if status in PASSING_STATUS:
        raise _Passing(f"HTTP {status}", _asked_wait(response.headers.get("Retry-After", "")))
    misplaced = status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
    if status == 416 or misplaced:
        # what lies here is no beginning of the server's file, or the server cannot say of what its bytes are the rest
        file.part.unlink(missing_ok=True)
        raise _Passing(f"HTTP {status} for a range", 0.0)
    if status not in (200, 206):
        raise InputError(
            f"{file.url} answered HTTP {status}: set POLAR_RELEASE_URL to the address under which train/, dev/ and test/ lie."
        )


def _asked_wait(retry_after: str) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date; None when it holds neither."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (until - datetime.now(until.tzinfo)).total_seconds())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
