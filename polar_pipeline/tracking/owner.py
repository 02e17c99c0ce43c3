"""Which process works on a tracked run, and whether that process still exists."""

import os
import socket
from collections.abc import Mapping
from functools import cache

HOST, PROCESS, STARTED = "polar.host", "polar.pid", "polar.process_start"
_CLOCK = 2.0  # seconds by which a start time may differ when the clock was set; a pid is not reused that soon


def owner_tags() -> dict[str, str]:
    """Tags that name this process."""
    return _tags_of(os.getpid())


@cache
def _tags_of(process: int) -> dict[str, str]:
    import psutil

    started = psutil.Process(process).create_time()
    return {HOST: socket.gethostname(), PROCESS: str(process), STARTED: f"{started:.2f}"}


def is_gone(tags: Mapping[str, str]) -> bool:
    """Whether the process in `tags` ran on this host and does so no more. False where that cannot be known."""
    import psutil

    if tags.get(HOST) != socket.gethostname() or PROCESS not in tags or STARTED not in tags:
        return False
    try:
        process = psutil.Process(int(tags[PROCESS]))
        same = abs(process.create_time() - float(tags[STARTED])) < _CLOCK
        return not same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
