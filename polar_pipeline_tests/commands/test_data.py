"""`polar data check`: two tables of 80 columns in which no number is cut."""

import os
import re
from pathlib import Path

import pytest

from polar_pipeline.commands.data import TABLES, check_data
from polar_pipeline.corpus.audit import Audit
from polar_pipeline.defs.project import Project
from polar_pipeline.task.languages import LANGUAGES
from polar_pipeline_tests.conftest import polar, real_data
from polar_pipeline_tests.corpus.tables import write_csv


def rows_of(shown: str) -> dict[str, list[str]]:
    """The cells of both tables by language."""
    found: dict[str, list[str]] = {}
    for line in shown.splitlines():
        cells = line.split()
        if cells and cells[0] in LANGUAGES:
            found[cells[0]] = found.get(cells[0], []) + cells[1:]
    return found


# a machine that is slow gets one now and then
PROGRESS_LINE = r"[a-z]{3}: \d of 3 languages, [\d.]+ languages/s(, .* left)?"


def check_shape(shown: str, codes: list[str]) -> None:
    assert max(map(len, shown.splitlines()[1:])) <= 80 and "…" not in shown
    rows = rows_of(shown)
    assert list(rows) == codes
    assert {len(cells) for cells in rows.values()} == {sum(map(len, TABLES.values())) - len(TABLES)}
    assert all(re.fullmatch(r"[\d.]+", cell) for cells in rows.values() for cell in cells)


LISTS: dict[str, object] = {
    "language": "deu",
    "types_train": {},
    "other_languages": {},
    "cross_split_ids": (),
    "repeated_id_examples": (),
}


@pytest.mark.slow
@pytest.mark.parametrize("columns", ["", "40", "80", "200"])
def test_it_fits_80_columns_in_a_pipe(tmp_path: Path, columns: str) -> None:
    done = polar(tmp_path / "home", "data", "check", "--profile", "demo", COLUMNS=columns)
    check_shape(done.stdout, ["eng", "deu", "hin"])
    assert done.stdout.splitlines()[0].endswith("bundled")
    assert all(re.fullmatch(PROGRESS_LINE, line) for line in done.stderr.splitlines()), done.stderr


def test_every_finding_is_shown(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fields = [field for columns in TABLES.values() for field in columns.values()]
    # examples and types are lists; group counts and quantiles stay in the asset's metadata
    elsewhere = {
        "types_train",
        "other_languages",  # in a sentence below the tables, where they are many
        "duplicate_groups",
        "cross_split_ids",
        "repeated_id_examples",
        "length_min",
        "length_p95",
    }
    assert set(fields) | elsewhere == set(Audit.model_fields)
    counts = {name: 1000 + place for place, name in enumerate(Audit.model_fields)}
    shares = {name: 0.001 * counts[name] % 1 for name in ("positive_train", "positive_dev", "shift_auc")}
    made = Audit.model_validate(
        {
            **counts,
            **shares,
            "language": "deu",
            "types_train": {},
            "other_languages": {},
            "cross_split_ids": (),
            "repeated_id_examples": (),
        }
    )
    monkeypatch.setattr("polar_pipeline.commands.data.audit", lambda *_: made)
    assert check_data(project, ["deu"]) == 0
    shown = capsys.readouterr().out
    check_shape(shown, ["deu"])
    expected = [f"{shares[name]:.3f}" if name in shares else str(counts[name]) for name in fields if name != "language"]
    assert rows_of(shown)["deu"] == expected


def test_a_number_is_never_cut(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    huge = dict.fromkeys(Audit.model_fields, 10**12)
    made = Audit.model_validate(
        {
            **huge,
            "language": "deu",
            "types_train": {},
            "other_languages": {},
            "cross_split_ids": (),
            "repeated_id_examples": (),
        }
    )
    monkeypatch.setattr("polar_pipeline.commands.data.audit", lambda *_: made)
    check_data(project, ["deu"])
    assert "…" not in (shown := capsys.readouterr().out) and shown.count(str(10**12)) > 15


def test_the_other_languages_are_shown_beside_a_broken_one(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    posts = [("id", "text", "polarization"), *((f"deu_{n}", f"Beitrag {n}", str(n % 2)) for n in range(8))]
    for split in ("train", "dev", "test"):
        write_csv(folder / split / "deu.csv", posts)
        write_csv(folder / split / "eng.csv", posts)
    command = ["data", "check", "--profile", "cpu", "--language", "deu", "--language", "eng"]
    done = polar(tmp_path / "home", *command, check=False, POLAR_DATA_DIR=str(folder))
    assert done.returncode == 2 and list(rows_of(done.stdout)) == ["deu"]
    assert "eng.csv: row 1 (line 2): column `id` is 'deu_0'" in done.stderr and "Traceback" not in done.stderr


@real_data
@pytest.mark.slow
def test_all_22_languages_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("polar_pipeline.corpus.audit.shift_auc", lambda *_: 0.5)
    project = Project.load("cpu", {"POLAR_HOME": "/nonexistent", "POLAR_DATA_DIR": os.environ["POLAR_DATA_DIR"]})
    assert check_data(project, project.codes) == 0
    check_shape(capsys.readouterr().out, project.codes)
