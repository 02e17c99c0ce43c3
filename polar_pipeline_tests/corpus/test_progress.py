"""What long steps show while they run."""

import io

import pytest

from polar_pipeline.corpus.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_when_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("files", 2) as advance:
        advance(1, "train/amh.csv")
        advance(1, "train/arb.csv")
    shown = capsys.readouterr()
    first, last = shown.err.splitlines()
    assert shown.out == "" and last.startswith("train/arb.csv: 2 of 2 files, ") and last.endswith(" files/s")
    assert first.startswith("train/amh.csv: 1 of 2 files, ") and "about" in first and first.endswith(" s left")


def test_lines_are_not_more_often_than_asked() -> None:
    lines: list[str] = []
    with progress("posts", 4000, every=60.0, say=lines.append) as advance:
        for _ in range(4):
            advance(1000, "")
    assert lines == []


def test_thousands_are_readable() -> None:
    lines: list[str] = []
    with progress("posts", 100_000, say=lines.append) as advance:
        advance(2000, "")
    assert lines[0].startswith("2,000 of 100,000 posts, ") and " posts/s, about " in lines[0]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with progress("files", 2) as advance:
        advance(1, "train/amh.csv")
    assert "1/2" in terminal.getvalue() and "files/s" in terminal.getvalue() and "\r" in terminal.getvalue()


def test_lines_to_a_function_even_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    lines: list[str] = []
    with progress("files", 1, say=lines.append) as advance:
        advance(1, "")
    assert len(lines) == 1 and terminal.getvalue() == ""
