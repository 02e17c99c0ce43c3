"""Tasks of several classes and of several labels, from a file to predictions, by every kind of backbone."""

import csv
import json
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.metrics import f1_score

from polar_pipeline.cli import polar
from polar_pipeline.decision.record import Decisions
from polar_pipeline.decision.targets import metric_of, nested_targets
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline_tests.words import classed, labelled

BACKBONES = """
backbones:
  - {name: linear, kind: linear}
  - {name: encoder, kind: encoder, model: "tiny:xlm_roberta", pooling: mean}
  - {name: small, kind: lora, model: "tiny:xlm_roberta", epochs: 1, device: cpu, heads: all}
"""


def polar_says(*arguments: object) -> str:
    found = CliRunner().invoke(polar, [str(one) for one in arguments], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def project_of(tmp_path: Path, frame: pd.DataFrame, *options: str, more: str = "") -> Project:
    """The project that `polar init` makes of a frame, with all kinds of backbones."""
    frame.to_csv(tmp_path / "own.csv", index=False)
    polar_says("init", tmp_path / "own.csv", "--to", tmp_path, "--language", "eng", *options)
    profile = tmp_path / "own.yaml"
    profile.write_text(profile.read_text().partition("backbones:")[0] + BACKBONES + more)
    return Project.load(str(profile), {"POLAR_HOME": str(tmp_path / "home")})


def run(project: Project) -> tuple[Decisions, pd.DataFrame]:
    home = project.home.root
    polar_says("run", "--all", "--profile", project.source, "--home", home)
    tables = home / "profiles" / "own" / "tables"
    decisions = Decisions.model_validate_json((tables / "thresholds" / "eng.json").read_text())
    return decisions, pd.read_parquet(tables / "ensemble_predictions" / "eng.parquet")


@pytest.mark.slow
def test_classes_from_a_file_to_predictions(tmp_path: Path) -> None:
    project = project_of(tmp_path, classed(240))
    assert project.card.kind == "multiclass"
    decisions, predictions = run(project)
    assert [one.target for one in decisions.targets] == list(project.card.targets)
    assert {member.backbone for member in decisions.first.members} == {"linear", "encoder", "small"}
    # the estimate is that of the nested answers, each post one class
    nested = nested_targets(decisions, project.posts("eng"))
    given, truth = (nested[name].unstack("target").to_numpy() for name in ("prediction", "label"))
    assert (given.sum(axis=1) == 1).all() and (truth.sum(axis=1) == 1).all()
    expected = f1_score(truth.argmax(axis=1), given.argmax(axis=1), average="macro")
    assert decisions.out_of_fold.value == pytest.approx(expected) and expected > 0.8
    assert predictions.groupby("id")["prediction"].sum().eq(1).all()
    posts = tmp_path / "new.csv"
    classed(30, seed=1).to_csv(posts, index=False)
    found = tmp_path / "found.csv"
    where = ("--profile", project.source, "--home", project.home.root, "--language", "eng")
    polar_says("predict", posts, *where, "--text", "comment", "--output", found)
    table = pd.read_csv(found)
    assert (table["mood"] == table["mood_given"]).mean() > 0.8
    report = (project.home.root / "profiles" / "own" / "report" / "index.html").read_text()
    assert "weight of the class" in report and "grief" in report


@pytest.mark.slow
def test_labels_from_a_file_to_a_submission(tmp_path: Path) -> None:
    frame = labelled(240).assign(never=0)
    project = project_of(tmp_path, frame, more="decision: {consistent: true}\n")
    assert project.card.targets == ("grief", "joy", "never")
    decisions, predictions = run(project)
    by_name = {one.target: one for one in decisions.targets}
    assert by_name["never"].strategy == "constant" and by_name["joy"].out_of_fold.value > 0.8
    metric = metric_of(project.card)
    nested = nested_targets(decisions, project.posts("eng"))
    given, truth = (nested[name].unstack("target").to_numpy() for name in ("prediction", "label"))
    assert decisions.out_of_fold.value == pytest.approx(metric.value(truth, given))
    assert decisions.whole is not None
    assert predictions.loc[predictions["target"] == "never", "prediction"].eq(0).all()
    posts = tmp_path / "new.csv"
    labelled(30, seed=1).to_csv(posts, index=False)
    where = ("--profile", project.source, "--home", project.home.root, "--language", "eng")
    polar_says("predict", posts, *where, "--text", "comment", "--output", tmp_path / "found.csv")
    table = pd.read_csv(tmp_path / "found.csv")
    assert (table["joy"] == table["joy_given"]).mean() > 0.9 and table["never"].eq(0).all()
    report = (project.home.root / "profiles" / "own" / "report" / "index.html").read_text()
    assert "never" in report and "constant" in report
    checks = json.loads((project.home.root / "profiles/own/tables/thresholds/eng.provenance.json").read_text())[
        "checks"
    ]
    assert any(check["name"] == "learned" and "never" in check["complaint"] for check in checks)


@pytest.mark.slow
def test_unlabelled_posts_are_submitted_in_the_form_of_the_task(tmp_path: Path) -> None:
    frame = labelled(200).astype({"grief": "Int8", "joy": "Int8"})
    frame.loc[180:, ["grief", "joy"]] = pd.NA
    project = project_of(tmp_path, frame, "--label", "grief", "--label", "joy")
    run(project)
    with zipfile.ZipFile(project.home.root / "profiles" / "own" / "submission.zip") as archive:
        (name,) = archive.namelist()
        rows = list(csv.DictReader(archive.read(name).decode().splitlines()))
    assert list(rows[0]) == ["id", "grief", "joy"] and len(rows) == 20
    assert {row["joy"] for row in rows} <= {"0", "1"}


def test_the_folds_of_several_labels_have_all_of_them(tmp_path: Path) -> None:
    project = project_of(tmp_path, labelled(300, shares=(0.05, 0.03)), "--label", "grief", "--label", "joy")
    posts = project.posts("eng")
    for name in ("grief", "joy"):
        counts = posts.groupby("fold")[name].sum()
        assert counts.max() - counts.min() <= 1


def test_synthesis_and_consistency_are_refused_where_they_mean_nothing(tmp_path: Path) -> None:
    project = project_of(tmp_path, classed(60))
    path = Path(project.source)
    whole = path.read_text()
    path.write_text(whole + "synthesis: {source: offline}\n")
    with pytest.raises(InputError, match="synthetic posts are of a binary task, and own is multiclass"):
        Project.load(str(path))
    path.write_text(whole + "decision: {consistent: true}\n")
    with pytest.raises(InputError, match="is of a task with several labels, and own is multiclass"):
        Project.load(str(path))


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("x,2,0", "row 2 .*column `joy` is '2', which should be 0 or 1"),
        ("x,,0", "row 2 .*column `joy` is '', which should be 0 or 1: label the post"),
    ],
)
def test_cells_of_labels_are_checked(tmp_path: Path, row: str, sentence: str) -> None:
    project = project_of(tmp_path, labelled(60), "--label", "joy", "--label", "grief")
    lines = (tmp_path / "own.csv").read_text().splitlines()
    header = lines[0].split(",")
    cells = dict(zip(("comment", "joy", "grief"), row.split(","), strict=True))
    lines[2] = ",".join(cells[name] for name in header)
    (tmp_path / "own.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match=sentence):
        project.posts("eng")


def test_a_class_that_is_unknown_is_named(tmp_path: Path) -> None:
    project = project_of(tmp_path, classed(60))
    text = (tmp_path / "own.csv").read_text()
    (tmp_path / "own.csv").write_text(text.replace("joy", "fury"))
    with pytest.raises(InputError, match="column `mood` is 'fury', which should be one of calm, grief, joy"):
        project.posts("eng")
