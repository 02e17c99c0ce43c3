"""`--json`: one object on standard output, and nothing else there."""

import json
import shutil
from pathlib import Path

import pytest

from polar_pipeline_tests.conftest import polar


@pytest.mark.slow
def test_a_script_can_read_what_was_done(finished_home: Path, tmp_path: Path) -> None:
    done = polar(finished_home, "run", "--all", "--profile", "demo", "--json")
    found = json.loads(done.stdout)
    assert (found["exit_code"], found["profile"], found["missing"]) == (0, "demo", {})
    assert sorted(found["languages"]) == ["deu", "eng", "hin"]
    for estimate in found["languages"].values():
        assert estimate["low"] <= estimate["value"] <= estimate["high"] and estimate["metric"] == "macro-F1"
        assert "labels" not in estimate
    assert Path(found["report"]).is_file() and Path(found["submission"]).is_file()
    assert "languages are current" in done.stderr

    status = json.loads(polar(finished_home, "status", "--json").stdout)
    assert status["home"] == str(finished_home) and status["runs"]["SUCCESS"] > 0 and status["orphans"] == []
    assert status["profiles"]["demo"]["not_current"] == {} and "deu" in status["profiles"]["demo"]["languages"]

    home = tmp_path / "home"
    shutil.copytree(finished_home / "profiles", home / "profiles")
    table = home / "profiles" / "demo" / "tables" / "thresholds" / "deu.json"
    table.write_text(table.read_text() + " ")
    after = json.loads(polar(home, "status", "--json").stdout)
    reasons = after["profiles"]["demo"]["not_current"]["deu"]["thresholds"]
    assert "was changed after it was written" in " ".join(reasons)

    compared = json.loads(
        polar(finished_home, "compare", "demo", f"{finished_home}:demo", "--language", "eng", "--json").stdout
    )
    assert list(compared["languages"]) == ["eng"] and compared["languages"]["eng"]["difference"]["value"] == 0.0
    assert compared["languages"]["eng"]["A"] == pytest.approx(found["languages"]["eng"]["value"])


@pytest.mark.slow
def test_a_home_that_is_not_there_is_empty(tmp_path: Path) -> None:
    found = json.loads(polar(tmp_path / "none", "status", "--json").stdout)
    assert (found["bytes"], found["profiles"], found["runs"]) == (0, {}, {})
