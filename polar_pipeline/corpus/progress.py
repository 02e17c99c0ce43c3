"""Progress of long steps on stderr: a bar in a terminal, lines elsewhere; both with the rate and the time left."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int, str], None]  # how many units were done, and which ("" for no name)


@contextmanager
def progress(unit: str, total: int, every: float = 0.0, say: Callable[[str], None] | None = None) -> Iterator[Advance]:
    """Give a function that counts towards `total` of `unit` (a plural noun).

    A bar if stderr is a terminal and `say` is not given; else lines to `say` or stderr, at least `every` seconds apart.
    """
    if say is None and sys.stderr.isatty():
        with _bar(unit, total) as advance:
            yield advance
    else:
        yield _lines(unit, total, every, say or to_stderr)


@contextmanager
def _bar(unit: str, total: int) -> Iterator[Advance]:
    from rich import progress as rich
    from rich.console import Console

    started, done = time.perf_counter(), 0
    bar = rich.Progress(
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn(f"{unit}, {{task.fields[rate]}}, left"),
        rich.TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        redirect_stdout=False,
        redirect_stderr=False,
    )

    def advance(count: int, _: str) -> None:
        nonlocal done
        done += count
        bar.update(task, advance=count, rate=_rate(done, time.perf_counter() - started, unit))

    with bar:
        task = bar.add_task("", total=total, rate="")
        yield advance


def _lines(unit: str, total: int, every: float, say: Callable[[str], None]) -> Advance:
    """Lines such as `train/amh.csv: 2 of 66 files, 5.1 files/s, about 13 s left`."""
    started = said = time.perf_counter()
    done = 0

    def advance(count: int, name: str) -> None:
        nonlocal done, said
        done += count
        now = time.perf_counter()
        if now - said < every:
            return
        said, seconds = now, now - started
        estimate = f", about {seconds / done * (total - done):.0f} s left" if done < total else ""
        place = f"{name}: " if name else ""
        say(f"{place}{done:,} of {total:,} {unit}, {_rate(done, seconds, unit)}{estimate}")

    return advance


def _rate(done: int, seconds: float, unit: str) -> str:
    rate = done / max(seconds, 1e-9)
    return f"{rate:,.0f} {unit}/s" if rate >= 10 else f"{rate:.1f} {unit}/s"


def to_stderr(line: str) -> None:
    """A line for a person, whatever stdout is used for."""
    print(line, file=sys.stderr, flush=True)
