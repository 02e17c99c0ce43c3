"""Progress is passed on early, at the end, and about once a second in between."""

import pytest

from polar_pipeline.backbones import base
from polar_pipeline.backbones.base import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as seconds to set."""
    now = [100.0]
    monkeypatch.setattr(base.time, "monotonic", lambda: now[0])
    return now


def test_the_first_the_last_and_one_call_a_second_are_passed_on(clock: list[float]) -> None:
    seen: list[tuple[float, float, str]] = []
    progress = Progress(advance=lambda *given: seen.append(given))
    for done in range(41):
        progress.advance(done, 40, "tokens")
        clock[0] += 0.125
    assert seen == [(done, 40, "tokens") for done in (0, 8, 16, 24, 32, 40)]


def test_another_unit_is_another_phase(clock: list[float]) -> None:
    seen: list[tuple[float, float, str]] = []
    progress = Progress(advance=lambda *given: seen.append(given))
    progress.advance(1, 9, "tokens")
    progress.advance(1, 9, "posts")
    progress.advancing(3, 9, "posts")(6)
    progress.advance(2, 9, "tokens")
    assert seen == [(1, 9, "tokens"), (1, 9, "posts"), (9, 9, "posts"), (2, 9, "tokens")]


def test_nobody_needs_to_listen() -> None:
    progress = Progress()
    progress.advance(1, 2, "folds")
    progress.measure(1, {"loss": 0.5})
    progress("a line")
    assert progress.latest == {"loss": 0.5}
