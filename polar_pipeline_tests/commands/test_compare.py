"""`polar compare`: what differs between two results is named, and results that cannot be compared are refused."""

import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from polar_pipeline.commands.compare import compare_runs
from polar_pipeline.decision.record import Decisions
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.project import Project, claim_results
from polar_pipeline.errors import ExitCode, InputError
from polar_pipeline_tests.conftest import CODES, polar
from polar_pipeline_tests.report.made import tables

YAML = "name: {name}\ndata: bundled\nlanguages: [deu, eng]\nbackbones: [{{name: linear, kind: linear}}]\n"


@cache
def made(code: str) -> tuple[pd.DataFrame, Decisions]:
    """Posts and decisions of a language."""
    posts, _, decisions = tables(code)
    return posts, decisions


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Project]:
    """A function that stores the results of a profile, of made-up posts, in this home or another one."""
    monkeypatch.setenv("POLAR_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def write(
        name: str, settings: str = "", codes: tuple[str, ...] = ("deu", "eng"), home: str = "home", wrong: bool = False
    ) -> Project:
        path = tmp_path / f"{name}.yaml"
        path.write_text(YAML.format(name=name) + settings)
        project = Project.load(str(path), {"POLAR_HOME": str(tmp_path / home)})
        claim_results(project)
        for code in codes:
            _write_language(project, code, wrong)
        return project

    return write


def _write_language(project: Project, code: str, wrong: bool) -> None:
    lineage = Lineage(project)
    posts, decisions = made(code)
    if wrong:  # every nested prediction is the other one
        bits = bytes(byte ^ 255 for byte in bytes.fromhex(decisions.first.nested))
        other = decisions.first.model_copy(update={"nested": bits.hex()})
        decisions = decisions.model_copy(update={"targets": (other,)})
    values: dict[str, Any] = {"raw_posts": posts, "thresholds": decisions}
    for name in lineage.language_assets:
        lineage.outputs.write(
            name, code, values.get(name, f"{name} of {code}"),
            settings=lineage.nodes[name].settings(code), sources={}, inputs=lineage.inputs(name, code),
        )  # fmt: skip


def rows(text: str) -> dict[str, list[str]]:
    """The cells of each line by its first one."""
    cells = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.strip()]
    return {found[0]: found[1:] for found in cells}


def test_profiles_of_one_home_by_name(store: Callable[..., Project], capsys: pytest.CaptureFixture[str]) -> None:
    store("plain")
    store("other", "seed: 5\ndecision: {strategy: linear}\nfolds: {count: 3}\n", wrong=True)
    assert compare_runs("plain", "other", ()) == ExitCode.DONE
    found = rows(capsys.readouterr().out)
    assert found["seed"] == ["20260223", "5"]
    assert found["decision.strategy"] == ['"simplex"', '"linear"'] and found["folds.count"] == ["5", "3"]
    assert not any("version" in name or "linear." in name for name in found)
    assert found["deu"][-1] == found["eng"][-1] == found["mean"][-1] == "A is better"


def test_the_settings_are_those_of_the_decisions_not_of_the_file(
    store: Callable[..., Project], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store("plain")
    store("other", "decision: {threshold: half}\n")
    (tmp_path / "other.yaml").write_text(YAML.format(name="other") + "decision: {threshold: argmax}\n")
    compare_runs("plain", "other.yaml", ())
    found = rows(capsys.readouterr().out)
    assert found["decision.threshold"] == ['"bagged"', '"half"'] and found["mean"][-1] == "the same"


def test_a_setting_of_a_backbone_and_one_that_only_one_side_has(
    store: Callable[..., Project], capsys: pytest.CaptureFixture[str]
) -> None:
    store("plain")
    two = (
        "backbones: [{name: linear, kind: linear, regularisation: 2}, {name: tiny, kind: lora, model: 'tiny:gemma3'}]\n"
    )
    path = Path("other.yaml")
    path.write_text(YAML.format(name="other").partition("backbones")[0] + two)
    project = Project.load(str(path))
    for code in ("deu", "eng"):
        _write_language(project, code, wrong=False)
    compare_runs("plain", "other", ())
    found = rows(capsys.readouterr().out)
    assert found["linear.regularisation"] == ["0.5", "2.0"] and found["backbone tiny"] == ["no", "yes"]
    assert not any(name.startswith("tiny.") for name in found)


def test_homes_and_profiles_of_homes(store: Callable[..., Project], capsys: pytest.CaptureFixture[str]) -> None:
    store("plain")
    store("far", home="away")
    compare_runs("plain", "away", ())
    assert "no setting differs" in capsys.readouterr().out
    store("near", "seed: 5\n", home="away")
    with pytest.raises(InputError, match=r"several profiles \(far, near\): name one of them, as away:far"):
        compare_runs("plain", "away", ())
    compare_runs("plain", "away:near", ())
    assert rows(capsys.readouterr().out)["seed"] == ["20260223", "5"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody", r"'nobody' is neither a profile with results in .*home \(plain\) nor a home folder"),
        ("cpu", "'cpu' is neither a profile with results"),
        ("empty", "empty holds no run: name the home folder"),
        ("away:near", "away has no results of profile 'near'"),
        ("away:../home/profiles/plain", "has no results of profile"),
        ("unused.yaml", "has no results of profile 'unused'"),
    ],
)
def test_what_is_no_result_is_named(store: Callable[..., Project], name: str, message: str) -> None:
    store("plain")
    store("far", home="away")
    Path("empty").mkdir()
    Path("unused.yaml").write_text(YAML.format(name="unused"))
    with pytest.raises(InputError, match=message):
        compare_runs("plain", name, ())


def test_a_profile_file_whose_name_belongs_to_another_file_is_refused(store: Callable[..., Project]) -> None:
    store("plain")
    Path("copy").mkdir()
    Path("copy/plain.yaml").write_text(YAML.format(name="plain") + "seed: 4\n")
    with pytest.raises(InputError, match=r"has the same name and other settings \(seed\)"):
        compare_runs("plain", "copy/plain.yaml", ())


def test_a_mixed_home_is_refused(store: Callable[..., Project], capsys: pytest.CaptureFixture[str]) -> None:
    store("plain")
    store("other")
    store("other", "decision: {threshold: argmax}\n", codes=("eng",))
    with pytest.raises(
        InputError,
        match=r'^other is mixed: setting decision.threshold was "bagged" for deu and "argmax" for eng: '
        r"run `polar run --all --profile /.*/other.yaml --home /.*/home`, or name with --language",
    ):
        compare_runs("plain", "other", ())
    compare_runs("plain", "other", ("eng",))
    assert rows(capsys.readouterr().out)["decision.threshold"] == ['"bagged"', '"argmax"']


def test_languages_with_plans_of_their_own_are_not_mixed(
    store: Callable[..., Project], capsys: pytest.CaptureFixture[str]
) -> None:
    store("plain", "synthesis: {source: offline}\n")
    store("other", "synthesis: {source: offline, per_language: {deu: {posts: 30}}}\n")
    compare_runs("plain", "other", ())
    assert rows(capsys.readouterr().out)["synthesis.posts (deu)"] == ["1000", "30"]
    store("other", "synthesis: {source: offline, per_language: {eng: {posts: 30}}}\n", codes=())
    with pytest.raises(InputError, match=r"other is mixed: setting synthesis.posts was 30 for deu and 1000 for eng"):
        compare_runs("plain", "other", ())


def test_languages_of_one_side_only_are_named(
    store: Callable[..., Project], capsys: pytest.CaptureFixture[str]
) -> None:
    store("plain")
    store("other", codes=("eng",))
    compare_runs("plain", "other", ())
    assert "in A only, left out: deu" in capsys.readouterr().out
    with pytest.raises(InputError, match="deu has not been decided in other"):
        compare_runs("plain", "other", ("deu",))
    store("third", codes=("deu",))
    with pytest.raises(InputError, match="other and third have no language in common"):
        compare_runs("other", "third", ())


@pytest.mark.parametrize("asset", ["thresholds", "raw_posts"])
def test_damaged_decisions_and_posts_are_refused(store: Callable[..., Project], asset: str) -> None:
    store("plain")
    outputs = Lineage(store("other")).outputs
    path = outputs.path(asset, "deu", pd.DataFrame if asset == "raw_posts" else Decisions)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{asset}/deu.* was changed after it was written"):
        compare_runs("plain", "other", ())


def test_settings_that_were_changed_beside_an_output_are_refused(store: Callable[..., Project]) -> None:
    store("plain")
    project = store("other")
    path = project.results.tables / "thresholds" / "deu.provenance.json"
    path.write_text(path.read_text().replace('"bagged"', '"argmax"'))
    with pytest.raises(InputError, match=r"the record of thresholds\[deu\] was changed after it was written"):
        compare_runs("plain", "other", ())


def test_a_decision_whose_upstream_was_made_again_is_refused(store: Callable[..., Project]) -> None:
    store("plain")
    project = store("other")
    lineage = Lineage(project)
    settings = lineage.nodes["linear_adapter"].settings("deu")
    lineage.outputs.write("linear_adapter", "deu", "another", settings=settings, sources={}, inputs={})
    with pytest.raises(
        InputError, match=r"other: the decision of deu was made from another linear_adapter\[deu\] than"
    ):
        compare_runs("plain", "other", ())
    (project.results.tables / "linear_adapter" / "deu.provenance.json").unlink()
    with pytest.raises(InputError, match=r"linear_adapter\[deu\], which the decision was made from, is not stored"):
        compare_runs("plain", "other", ())


def test_files_that_differ_are_named(store: Callable[..., Project], capsys: pytest.CaptureFixture[str]) -> None:
    store("plain")
    project = store("other", codes=("eng",))
    lineage = Lineage(project)
    settings = lineage.nodes["raw_posts"].settings("eng")
    lineage.outputs.write(
        "raw_posts", "eng", made("eng")[0], settings=settings, sources={"train/eng.csv": "0" * 64}, inputs={}
    )
    compare_runs("plain", "other", ("eng",))
    assert "files that differ: train/eng.csv" in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_is_the_same_as_its_copy(finished_home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished_home / "profiles", copy / "profiles")
    done = polar(finished_home, "compare", "demo", str(copy))
    lines = [line for line in done.stdout.splitlines() if line.strip().startswith((*CODES, "mean"))]
    assert len(lines) == len(CODES) + 1 and all(line.rstrip().endswith("the same") for line in lines)
    assert "no setting differs" in done.stdout
    done = polar(tmp_path / "home", "compare", str(finished_home), str(tmp_path), check=False)
    assert done.returncode == ExitCode.WRONG_INPUT
    assert done.stderr.startswith(f"polar: {tmp_path} holds no run") and len(done.stderr.splitlines()) == 1
