"""The export holds the report's figures, and every error of the posts that have a label, as they were posted."""

import csv
import io
import re
from pathlib import Path

import pandas as pd
import pytest

from polar_pipeline.decision.decide import nested_table
from polar_pipeline.errors import InputError
from polar_pipeline.report.evidence import ERROR_COLUMNS, LanguageResults, Results
from polar_pipeline.report.export import export_report, report_tables
from polar_pipeline_tests.report.made import CARD, PROFILE, Findings, evidence, tables

HOSTILE = ['=cmd|"/c calc"!A1', "one,\r\ntwo\rthree\n", "NA", "", "‮нет\u2028", "\";'--", " spaces "]


def results(*codes: str, texts: list[str] | None = None) -> Results:
    present = {}
    for code in codes:
        posts, predictions, decisions = tables(code)
        posts["source"] = "real"
        if texts:
            posts["text"] = [texts[i % len(texts)] for i in range(len(posts))]
        curated = posts.assign(keep=True, stage="", judge_probability=0.5, backbone_label=posts["label"])
        present[code] = LanguageResults(posts, predictions, decisions, Findings(), CARD, curated)
    return Results(present, {"swa": "raw_posts not materialized yet"})


def read_errors(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "errors.csv").read_bytes().decode("utf-8"), newline="")))


def test_the_errors_of_decided_posts_are_those_of_the_headline_estimate(tmp_path: Path) -> None:
    both = results("deu", "eng")
    export_report(tmp_path, both, {}, PROFILE, CARD)
    rows = read_errors(tmp_path)
    assert list(rows[0]) == ERROR_COLUMNS
    for code, found in both.present.items():
        nested = nested_table(found.decisions.first, found.posts)
        expected = nested.index[nested["label"].astype(int) != nested["prediction"]]
        mine = [row for row in rows if row["language"] == code and row["split"] == "train"]  # dev is in no fold here
        assert {(row["split"], row["id"]) for row in mine} == set(expected) and len(mine) == len(expected)
        _, fp, fn, _ = found.decisions.first.confusion
        assert [sum(row["label"] == label for row in mine) for label in "01"] == [fp, fn]
        by_key = found.predictions.set_index(["split", "id"])
        for row in mine:
            predicted = by_key.loc[(row["split"], row["id"])]
            assert float(row["probability"]) == pytest.approx(predicted["probability"], abs=1e-6)
            assert float(row["margin"]) == pytest.approx(predicted["margin"], abs=1e-6)
            assert (row["fold"], row["final_prediction"]) == (str(predicted["fold"]), str(predicted["prediction"]))
            assert {row["label"], row["prediction"]} == {"0", "1"}


def test_posts_that_were_not_decided_on_are_judged_by_the_final_threshold(tmp_path: Path) -> None:
    both = results("deu", "eng")
    labels = pd.Series([0, 1] * 30, index=[f"deu_{i}" for i in range(220, 280)], dtype="Int8")
    labels.iloc[:10] = pd.NA
    export_report(tmp_path, both, {"deu": labels.to_frame("label"), "eng": None}, PROFILE, CARD)
    rows = read_errors(tmp_path)
    deu = both.present["deu"]
    dev_labels = deu.posts[deu.posts["split"] == "dev"].set_index("id")["label"]
    for split, truth in (("dev", dev_labels), ("test", labels)):
        predicted = deu.predictions[deu.predictions["split"] == split].set_index("id")["prediction"]
        known = truth.dropna().astype(int)
        mine = [row for row in rows if (row["language"], row["split"]) == ("deu", split)]
        assert {row["id"] for row in mine} == set(known.index[known != predicted[known.index]]) and mine
        assert all(row["prediction"] == row["final_prediction"] and row["fold"] == "-1" for row in mine)
    assert {row["language"] for row in rows if row["split"] == "test"} == {"deu"}


def test_posts_are_exported_as_they_are(tmp_path: Path) -> None:
    found = results("deu", texts=HOSTILE)
    export_report(tmp_path, found, {}, PROFILE, CARD)
    texts = dict(zip(found.present["deu"].posts["id"], found.present["deu"].posts["text"], strict=True))
    rows = read_errors(tmp_path)
    assert rows and all(row["post"] == texts[row["id"]] for row in rows)
    assert {row["post"] for row in rows} == set(HOSTILE)
    again = pd.read_csv(tmp_path / "errors.csv", keep_default_na=False)
    assert again["post"].tolist() == [row["post"] for row in rows]


def test_every_file_and_column_is_explained(tmp_path: Path) -> None:
    files = export_report(tmp_path, results("deu", "eng"), {}, PROFILE, CARD)
    assert sorted(files) == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    readme = (tmp_path / "README.txt").read_text(encoding="utf-8")
    assert "Not exported: Swahili: raw_posts not materialized yet" in readme and PROFILE.fingerprint in readme
    for file in (tmp_path / "tables").glob("*.csv"):
        section = readme.split(f"\n  {file.stem}: ")[1]
        for column in pd.read_csv(file).columns:
            assert re.search(rf"(?m)^    {column}  +\S", section), (file.stem, column)
    for column in ERROR_COLUMNS:
        assert re.search(rf"(?m)^  {column}  +\S", readme.split("errors.csv\n")[1]), column
    for figure in (tmp_path / "figures").iterdir():
        assert figure.stem.split("_")[-1] in readme
        start = b"\x89PNG" if figure.suffix == ".png" else b"<?xml"
        assert figure.read_bytes().startswith(start)


def test_the_tables_hold_the_figures_of_the_evidence(tmp_path: Path) -> None:
    export_report(tmp_path, results("deu", "eng"), {}, PROFILE, CARD)
    scores = pd.read_csv(tmp_path / "tables" / "scores.csv").set_index("language")
    item = evidence("deu")
    row = scores.loc["deu"]
    assert (row["macro_f1"], row["macro_f1_low"]) == pytest.approx(
        (item.out_of_fold.value, item.out_of_fold.low), abs=1e-6
    )
    assert (row["name"], row["winner"], row["train_posts"]) == ("German", 0.7531, 200)
    summary = pd.read_csv(tmp_path / "tables" / "summary.csv").set_index("figure")["value"]
    assert summary["macro_f1"] == pytest.approx(scores["macro_f1"].mean(), abs=1e-6)
    latex = (tmp_path / "tables" / "scores.tex").read_text(encoding="utf-8")
    assert latex.startswith("\\begin{tabular}") and "macro\\_f1" in latex and f"{item.out_of_fold.value:.3f}" in latex


def test_tables_of_another_task_have_no_official_scores() -> None:
    assert "winner" not in report_tables([evidence("deu")], {})["scores"].frame


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        export_report(tmp_path / name, results("deu"), {}, PROFILE, CARD)
    for file in (tmp_path / "one").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes(), file.name


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/export cannot be made \(Not a directory\)"):
        export_report(tmp_path / "file" / "export", results("deu"), {}, PROFILE, CARD)
