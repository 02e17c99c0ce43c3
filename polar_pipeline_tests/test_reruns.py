"""A second `polar run`: what is not current is named with the reason and made again, and nothing else is."""

import csv
import io
import shutil
import sqlite3
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from polar_pipeline.decision.predictions import predict_targets
from polar_pipeline.defs.build import build_defs
from polar_pipeline.defs.instance import open_instance
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.errors import InputError
from polar_pipeline_tests.conftest import Site, computed

pytestmark = pytest.mark.slow

OF_A_LANGUAGE = ["raw_posts", "corpus_audit", "synthetic_posts", "deduped_posts", "linear_adapter"]
OF_A_LANGUAGE += ["linear_dev_probabilities", "thresholds", "ensemble_predictions"]
ACROSS = {("benchmark_report", ""), ("submission", "")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A run that has ended; to be copied."""
    site = Site.make(tmp_path_factory.mktemp("finished"))
    site.run("--jobs", "2")
    return site


@pytest.fixture
def site(finished: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A copy of the finished run, to be changed."""
    copied = finished.copy(tmp_path)
    monkeypatch.setenv("POLAR_DATA_DIR", str(copied.release))
    return copied


def rerun(site: Site, *arguments: str, code: int = 0, profile: str = "own") -> tuple[str, set[tuple[str, str]]]:
    """What another `polar run` prints, and the assets and languages that it computes, each once."""
    before = computed(site.home)
    done = site.run(*arguments, profile=profile, check=False)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stdout + done.stderr
    new = computed(site.home) - before
    assert set(new.values()) <= {1}
    return done.stdout + done.stderr, set(new)


def contents(site: Site, profile: str = "own") -> dict[str, bytes]:
    """Everything that a profile's runs left, the adapters too; not the note of where the profile's file lies."""
    roots = [site.results(profile), site.home / "adapters"]
    files = [file for root in roots for file in root.rglob("*") if file.is_file() and file.name != "profile.json"]
    return {str(file): file.read_bytes() for file in files}


def dagster_runs(home: Path) -> int:
    with closing(sqlite3.connect(home / "dagster" / "history" / "runs.db")) as database:
        return int(database.execute("SELECT count(*) FROM runs").fetchone()[0])


def edit_posts(path: Path, change: Callable[[list[dict[str, str]]], object]) -> None:
    """Change the rows of a file of the release in place."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def submitted(site: Site, profile: str = "own") -> dict[str, list[dict[str, str]]]:
    """The rows of the submission by language."""
    with zipfile.ZipFile(site.results(profile) / "submission.zip") as archive:
        names = {name.removesuffix(".csv").rpartition("_")[2]: name for name in archive.namelist()}
        return {
            code: list(csv.DictReader(io.StringIO(archive.read(name).decode()))) for code, name in sorted(names.items())
        }


def check_submission(site: Site, codes: list[str]) -> None:
    """It has these languages, and each label is what the stored decision says of the stored scores."""
    project, rows = site.project(), submitted(site)
    lineage = Lineage(project)
    assert list(rows) == codes
    for code in codes:
        decisions, posts = lineage.read("thresholds", code), lineage.read("raw_posts", code)
        made = predict_targets(decisions, posts, lineage.read("linear_dev_probabilities", code), project.card)
        test = made[made["split"] == "test"]
        expected = [{"id": row.id, "polarization": str(row.prediction)} for row in test.itertuples()]
        assert rows[code] == expected


def materialize(site: Site, profile: str, job: str, *assets: str, code: str | None = None) -> dg.ExecuteInProcessResult:
    """As the UI would: some assets of a job, for one language or none."""
    project = site.project(profile)
    with open_instance(project.home.dagster) as instance:
        return (
            build_defs(project)
            .resolve_job_def(job)
            .execute_in_process(
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                instance=instance,
                partition_key=code,
                asset_selection=[dg.AssetKey([project.profile.name, name]) for name in assets] or None,
                raise_on_error=False,
            )
        )


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data
    return f"{data.user_failure_data.description if data.user_failure_data else ''} {data.error and data.error.cause}"


def flip(path: Path, place: float = 0.5) -> None:
    """Invert one bit at this share of the file."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


def test_a_run_with_nothing_changed_computes_nothing(site: Site) -> None:
    before, runs = contents(site), dagster_runs(site.home)
    said, made = rerun(site)
    assert "2 of 2 languages are current" in said
    assert not made and dagster_runs(site.home) == runs and contents(site) == before
    rerun(site, "--language", "eng")  # one of them alone leaves the other in the submission
    assert contents(site) == before
    said, made = rerun(site, "--force")
    assert made == {(asset, code) for asset in OF_A_LANGUAGE for code in ("deu", "eng")} | ACROSS
    assert contents(site) == before


def test_added_and_changed_test_posts_are_predicted(site: Site) -> None:
    def add(rows: list[dict[str, str]]) -> None:
        rows.append({**rows[0], "id": "deu_new", "text": "Die einen gegen die anderen, wie immer."})

    def change(rows: list[dict[str, str]]) -> None:
        rows[3]["text"] = "They are all liars, every one of them, and they always were."

    edit_posts(site.release / "test" / "deu.csv", add)
    edit_posts(site.release / "test" / "eng.csv", change)
    before = Lineage(site.project()).read("ensemble_predictions", "eng")
    said, made = rerun(site)
    assert "0 of 2 languages are current" in said
    assert "eng, deu: raw_posts: file test/<language>.csv has changed" in said
    check_submission(site, ["deu", "eng"])
    assert submitted(site)["deu"][-1]["id"] == "deu_new"
    after = Lineage(site.project()).read("ensemble_predictions", "eng")
    moved = before["split"] == "test"
    assert (before.loc[moved, "probability"] != after.loc[moved, "probability"]).sum() == 1
    assert {("raw_posts", "deu"), ("ensemble_predictions", "eng")} | ACROSS <= made


def test_a_changed_label_trains_its_language_alone(site: Site) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        rows[5]["polarization"] = str(1 - int(rows[5]["polarization"]))

    edit_posts(site.release / "train" / "deu.csv", change)
    said, made = rerun(site)
    assert "1 of 2 languages are current\n  deu: raw_posts: file train/deu.csv has changed" in said
    assert {code for _, code in made} == {"deu", ""} and ("linear_adapter", "deu") in made
    check_submission(site, ["deu", "eng"])


def test_a_setting_of_the_decision_trains_nothing(site: Site) -> None:
    site.write_profile("own", ("resamples: 20", "resamples: 30"))
    posts = str(site.release / "test" / "deu.csv")
    refused = site.polar("predict", posts, "--language", "deu", "--profile", "own.yaml", check=False)
    assert refused.returncode == 2 and refused.stdout == ""
    assert "thresholds of deu is not current (thresholds: setting decision.resamples is 30, was 20)" in refused.stderr
    said, made = rerun(site)
    assert "0 of 2 languages are current\n  eng, deu: thresholds: setting decision.resamples is 30, was 20" in said
    assert {asset for asset, _ in made} <= {"thresholds", "ensemble_predictions", "benchmark_report", "submission"}
    assert {("thresholds", "deu"), ("thresholds", "eng")} <= made
    check_submission(site, ["deu", "eng"])


def test_a_setting_of_the_report_leaves_the_decisions_current(site: Site) -> None:
    site.write_profile("own", ("report: {resamples: 100}", "report: {resamples: 200}"))
    posts = str(site.release / "test" / "deu.csv")
    labels = site.polar("predict", posts, "--language", "deu", "--profile", "own.yaml").stdout
    rows = [(row["id"], row["polarization"]) for row in csv.DictReader(io.StringIO(labels))]
    assert rows == [(row["id"], row["polarization"]) for row in submitted(site)["deu"]]
    said, made = rerun(site)
    assert "2 of 2 languages are current" in said and "report.resamples is 200, was 100" in said
    assert made == {("benchmark_report", "")}


def test_one_more_language_leaves_the_others_current(site: Site) -> None:
    site.write_profile("own", ("[deu, eng]", "[deu, eng, hin]"))
    said, made = rerun(site)
    assert "2 of 3 languages are current\n  hin: not made yet" in said
    assert made == {(asset, "hin") for asset in OF_A_LANGUAGE} | ACROSS
    check_submission(site, ["deu", "eng", "hin"])


@pytest.mark.parametrize(
    ("asset", "file"),
    [
        ("raw_posts", "profiles/own/tables/raw_posts/{}.parquet"),
        ("linear_adapter", "adapters/linear/{}/*/adapter.safetensors"),
        ("linear_dev_probabilities", "profiles/own/tables/linear_dev_probabilities/{}.parquet"),
        ("ensemble_predictions", "profiles/own/predictions/{}.csv"),
    ],
)
def test_what_is_damaged_or_deleted_is_made_again_and_nothing_else(site: Site, asset: str, file: str) -> None:
    before = contents(site)
    (deu,), (eng,) = (list(site.home.glob(file.format(code))) for code in ("deu", "eng"))
    flip(deu)
    eng.unlink()
    said, made = rerun(site)
    assert "0 of 2 languages are current" in said
    for path, complaint in ((deu, "was changed after it was written"), (eng, "is missing")):
        assert f"{path.relative_to(site.home)} {complaint}" in said.replace("\n", " "), said
    assert made == {(asset, "deu"), (asset, "eng")}
    assert contents(site) == before


@pytest.mark.parametrize(
    ("asset", "file"), [("submission", "submission.zip"), ("benchmark_report", "report/index.html")]
)
def test_a_damaged_report_or_submission_is_made_again(site: Site, asset: str, file: str) -> None:
    before, path = contents(site), site.results() / file
    flip(path)
    said, made = rerun(site)
    assert f"{file} was changed after it was written" in said
    assert made == {(asset, "")} and contents(site) == before
    path.unlink()
    said, made = rerun(site)
    assert f"{file} is missing" in said
    assert made == {(asset, "")} and contents(site) == before


def test_every_stored_file_is_watched(site: Site) -> None:
    """Whatever is deleted, cut short or has one bit flipped is noticed; tables and records then cannot be read."""
    project = site.project()
    files = [path for path in map(Path, contents(site)) if path.name != "profile.json"]
    assert len(files) > 40
    for path in files:
        whole = path.read_bytes()
        made_from = path.name.endswith(".provenance.json")
        damaged: list[bytes | None] = [None, whole[: len(whole) // 2]]
        if not made_from:  # its own hash is in no other file; a flip is in a value that is compared, or leaves no JSON
            damaged += [
                bytes([*whole[:at], whole[at] ^ 4, *whole[at + 1 :]]) for at in (0, len(whole) // 3, -1 % len(whole))
            ]
        for content in damaged:
            path.unlink() if content is None else path.write_bytes(content)
            lineage = Lineage(project)
            stale = {asset for code in ("deu", "eng") for asset in lineage.stale(code)}
            stale |= {asset for asset, _ in ACROSS if lineage.why_not_current(asset, None)}
            assert stale, path
            if path.parent.parent.name == "tables":
                language = path.name.partition(".")[0]
                with pytest.raises(InputError, match=r"`polar run` again|is not there"):
                    lineage.read(path.parent.name, None if language == "all" else language)
            path.write_bytes(whole)
    assert not Lineage(project).stale("deu") and not Lineage(project).stale("eng")


def test_thresholds_of_other_settings_never_reach_the_submission(site: Site) -> None:
    site.write_profile("other", ("resamples: 20", "threshold: half"))  # and the same name
    before = contents(site)
    assert materialize(site, "other", "language_pipeline", "thresholds", code="deu").success
    assert materialize(site, "own", "report").success  # as the automation would
    check_submission(site, ["eng"])
    said, made = rerun(site)
    assert "1 of 2 languages are current" in said
    assert "deu: thresholds: setting decision.resamples is 20, was 200; " in said
    assert "setting decision.threshold is bagged, was half" in said
    assert ("thresholds", "deu") in made and {code for _, code in made} == {"deu", ""}
    check_submission(site, ["deu", "eng"])
    assert contents(site) == before


@pytest.mark.parametrize("hidden", [False, True])
def test_scores_that_were_changed_on_disk_are_never_used(site: Site, hidden: bool) -> None:
    """Times -3, which turns nearly every label around; `hidden`: with hashes that fit."""
    before, outputs = contents(site), Lineage(site.project()).outputs
    path = outputs.path("linear_dev_probabilities", "deu", pd.DataFrame)
    scores = pd.read_parquet(path)
    scores["logit"] *= -3
    if hidden:
        found = outputs.provenance("linear_dev_probabilities", "deu")
        assert found is not None
        kept = {"settings": found.settings, "sources": found.sources, "inputs": found.inputs, "checks": found.checks}
        outputs.write("linear_dev_probabilities", "deu", scores, **kept)
    else:
        scores.to_parquet(path, index=False)
    alone = materialize(site, "own", "language_pipeline", "ensemble_predictions", code="deu")
    assert not alone.success
    sentence = "was decided with other models or scores" if hidden else "was changed after it was written"
    assert sentence in failure(alone)
    said, made = rerun(site, code=1 if hidden else 0)
    predictions = str(site.results() / "predictions" / "deu.csv")
    assert contents(site)[predictions] == before[predictions]
    if hidden:  # the decision is made again, and notices
        assert "its out-of-fold scores are inverted" in said and list(submitted(site)) == ["eng"]
    else:
        assert made == {("linear_dev_probabilities", "deu")} and contents(site) == before


def test_two_profiles_in_one_home_leave_each_other_alone(site: Site) -> None:
    site.write_profile("second", ("name: own", "name: second"), ("resamples: 20", "resamples: 30"))
    before = contents(site)
    said, made = rerun(site, "--language", "deu", profile="second")
    assert "0 of 1 languages are current" in said and Counter(code for _, code in made)["deu"] == len(OF_A_LANGUAGE)
    after = contents(site)
    assert all(after[path] == content for path, content in before.items())
    assert list(submitted(site)) == ["deu", "eng"] and list(submitted(site, "second")) == ["deu"]
    said, made = rerun(site)
    assert "2 of 2 languages are current" in said and not made


def test_a_copy_that_kept_the_name_is_refused(site: Site) -> None:
    before = contents(site)
    site.write_profile("copy", ("resamples: 20", "resamples: 30"))
    said, made = rerun(site, code=2, profile="copy")
    assert "own.yaml" in said and "copy.yaml" in said and "decision.resamples" in said and "a name of its own" in said
    site.write_profile("bundled", ("name: own", "name: demo"))
    assert "has the name of the bundled profile 'demo' and other settings" in rerun(site, code=2, profile="bundled")[0]
    assert not made and contents(site) == before
    shutil.move(site.folder / "own.yaml", site.folder / "kept.yaml")  # a file that was only renamed goes on
    assert "2 of 2 languages are current" in rerun(site, profile="kept")[0]
