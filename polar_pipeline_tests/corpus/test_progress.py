"""What a download says while it runs."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from polar_pipeline.corpus.progress import Bar, Lines, watching


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_when_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with watching(2, print) as watch:
        watch.on_bytes(2_500_000)
        watch.on_file(Path("release/train/amh.csv"))
    line = capsys.readouterr().out
    assert line.startswith("[1/2] train/amh.csv  (2.5 MB, ") and "about" in line and line.endswith(" s left)\n")


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    with watching(2, print) as watch:
        assert isinstance(watch, Bar)
        watch.on_bytes(2_500_000)
        watch.on_file(Path("release/train/amh.csv"))
    assert "1/2" in terminal.getvalue() and "2.5 MB" in terminal.getvalue()
    assert Console(file=terminal).is_terminal  # the premise of this test


def test_lines_for_a_reporter_of_ones_own_even_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", Terminal())
    with watching(1, [].append) as watch:
        assert isinstance(watch, Lines)
