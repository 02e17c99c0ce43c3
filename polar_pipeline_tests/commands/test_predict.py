"""`polar predict`: new posts get the graph's predictions, in little memory; every mistake is one sentence."""

import csv
import io
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import polar_pipeline
from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.commands import predict as predict_command
from polar_pipeline.commands.new_posts import SHOWN, Post, Reading, open_posts, read_new_posts
from polar_pipeline.commands.predict import BATCH
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.decision.record import Decision, Decisions, Estimate, Member
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.settings.files import FileFormat
from polar_pipeline.tables.rows import BadRow
from polar_pipeline.task.card import load_card
from polar_pipeline_tests.conftest import polar
from polar_pipeline_tests.corpus.tables import CARD

slow = pytest.mark.slow


@pytest.fixture(scope="session")
def linear(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A home in which German was decided with the linear backbone of the demo alone, and the profile."""
    folder = tmp_path_factory.mktemp("linear")
    settings = yaml.safe_load((Path(polar_pipeline.__file__).parent / "profiles" / "demo.yaml").read_text())
    settings["name"] = "linear"
    settings["backbones"] = [entry for entry in settings["backbones"] if entry["kind"] == "linear"]
    (folder / "linear.yaml").write_text(yaml.safe_dump(settings))
    profile = str(folder / "linear.yaml")
    polar(folder / "home", "run", "--language", "deu", "--profile", profile, "--jobs", "1")
    return folder / "home", profile


def predict(
    linear: tuple[Path, str], posts: Path, *arguments: str, check: bool = True
) -> subprocess.CompletedProcess[str]:
    home, profile = linear
    return polar(home, "predict", str(posts), "--language", "deu", "--profile", profile, *arguments, check=check)


def made_up(path: Path, count: int) -> Path:
    words = ["die", "das", "und", "nicht", "wir", "politik", "wahl", "heute", "immer", "nie", "geld", "leute", "gut"]
    rng = random.Random(1)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "text"])
        writer.writerows([f"p{row}", " ".join(rng.choices(words, k=rng.randint(6, 24)))] for row in range(count))
    return path


@slow
def test_posts_of_test_get_the_predictions_that_the_graph_made(finished_home: Path, tmp_path: Path) -> None:
    posts = bundled_folder() / "test" / "deu.csv"
    done = polar(finished_home, "predict", str(posts), "--language", "deu", "--profile", "demo")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    with (finished_home / "profiles" / "demo" / "predictions" / "deu.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    assert [{key: row[key] for key in expected[0]} for row in rows] == expected
    table = pd.read_parquet(finished_home / "profiles" / "demo" / "tables" / "ensemble_predictions" / "deu.parquet")
    assert [row["review"] == "True" for row in rows] == table.loc[table["split"] == "test", "review"].tolist()
    assert f"{len(rows)} posts, " in done.stderr and "macro-F1" in done.stderr
    output = tmp_path / "out" / "labels.csv"
    polar(
        finished_home, "predict", str(posts), "--language", "deu", "--profile", "demo", "--output", str(output)
    )  # fmt: skip
    assert output.read_text() == done.stdout


@slow
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            "id,words\n1,x\n",
            "posts.csv lacks the column `text`: name the right ones with --text and --id; it has `id`, `words`.",
        ),
        (
            "id,text\n1,x\n1,y\n",
            "row 2 (line 3): `id` is doubled, an earlier row has the same: correct it, or leave out",
        ),
        ("id,text\n1,x\n,y\n", "row 2 (line 3): `id` is empty: correct it, or leave out bad rows with --skip-bad."),
        ("id,text\n1,x\n2,  \n", "row 2 (line 3): `text` is empty: correct it, or leave out bad rows with --skip-bad."),
        ("id,text\n1,x\n2,\u200b\n", "row 2 (line 3): `text` is empty: correct it"),
        ("id,text\n1,x\n2,y,z\n", "row 2 (line 3) has 3 fields where the header has 2: put quotes around texts"),
        ("id,text\n", "has a header and no row"),
        (None, "posts.csv does not exist: correct the path."),
    ],
)
def test_bad_files(linear: tuple[Path, str], tmp_path: Path, content: str | None, sentence: str) -> None:
    path = tmp_path / "posts.csv"
    if content is not None:
        path.write_text(content)
    output = tmp_path / "labels.csv"
    done = predict(linear, path, "--output", str(output), check=False)
    assert (done.returncode, done.stdout, output.exists()) == (2, "", False)
    assert sentence in done.stderr and "Traceback" not in done.stderr


@slow
def test_what_was_not_decided_or_has_changed_is_refused(linear: tuple[Path, str], tmp_path: Path) -> None:
    posts, (finished, profile) = bundled_folder() / "test" / "deu.csv", linear
    done = predict((tmp_path / "empty", profile), posts, check=False)
    assert done.returncode == 2 and "thresholds of deu is not current (raw_posts: not made yet)" in done.stderr
    home, own = tmp_path / "home", tmp_path / "linear.yaml"
    for folder in ("profiles", "adapters"):
        shutil.copytree(finished / folder, home / folder)
    text = Path(profile).read_text(encoding="utf-8")
    for part in ("decision", "folds"):  # a setting of the last step, and one of the first
        settings = yaml.safe_load(text)
        settings[part] = {**settings.get(part, {}), **{"decision": {"resamples": 100}, "folds": {"count": 4}}[part]}
        own.write_text(yaml.safe_dump(settings), encoding="utf-8")
        done = predict((home, str(own)), posts, check=False)
        assert done.returncode == 2 and f"setting {part}." in done.stderr
    own.write_text(yaml.safe_dump({**yaml.safe_load(text), "report": {"resamples": 100}}), encoding="utf-8")
    assert predict((home, str(own)), posts).stdout == predict(linear, posts).stdout
    damaged = [home / "profiles" / "linear" / "tables" / "linear_adapter" / "deu.json"]
    damaged += [*(home / "adapters").rglob("adapter.safetensors"), home / "profiles/linear/tables/thresholds/deu.json"]
    assert len(damaged) == 3
    for path in damaged:
        whole = path.read_bytes()
        path.write_bytes(bytes([*whole[:-20], whole[-20] ^ 1, *whole[-19:]]))
        done = predict((home, profile), posts, check=False)
        assert done.returncode == 2 and f"{path.name} was changed after it was written" in done.stderr
        path.write_bytes(whole)


@slow
def test_scores_and_adapters_of_another_decision_are_refused(linear: tuple[Path, str], tmp_path: Path) -> None:
    """Also where every hash fits, as after another model was stored: the decision names its adapters."""
    finished, profile = linear
    home = tmp_path / "home"
    for folder in ("profiles", "adapters"):
        shutil.copytree(finished / folder, home / folder)
    outputs = Lineage(Project.load(profile, {"POLAR_HOME": str(home)})).outputs
    found = outputs.provenance("linear_adapter", "deu")
    assert found is not None
    ref = outputs.read("linear_adapter", "deu", AdapterRef)
    kept = {"settings": found.settings, "sources": found.sources, "inputs": found.inputs}
    kept["files"] = [home / name for name in found.files]
    outputs.write("linear_adapter", "deu", ref.model_copy(update={"sha256": "0" * 64}), **kept)
    done = predict((home, profile), bundled_folder() / "test" / "deu.csv", check=False)
    assert (done.returncode, done.stdout) == (2, "") and "another linear_adapter[deu]" in done.stderr


class TwoHeads:
    """A backbone with two heads that counts how often it is asked."""

    texts_at_once = 1024

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def logits(self, language: str, ref: object, texts: list[str], seeds: tuple[int, ...]) -> dict[str, Floats]:
        self.asked.append(seeds)
        return {"label": np.full(len(texts), 1.0), "types": np.full(len(texts), 2.0)}


@pytest.fixture
def two_heads(monkeypatch: pytest.MonkeyPatch) -> tuple[TwoHeads, Decisions, Any]:
    """A decision by both heads of a backbone, a third member without weight that cannot answer, and a project."""
    ways = [("two", "label", 0.25), ("two", "types", 0.75), ("silent", "label", 0.0)]
    members = tuple(Member(backbone=b, head=head, seeds=(0, 1), temperature=1.0, weight=w) for b, head, w in ways)
    estimate = Estimate(value=0.8, low=0.7, high=0.9, posts=5)
    decision = Decision.model_construct(
        language="deu", members=members, intercept=0.0, threshold=0.5, review_margin=0.1, out_of_fold=estimate,
        shift_response="rate_matching",
    )  # fmt: skip
    decisions = Decisions.model_construct(
        language="deu", metric="macro-F1", targets=(decision,), out_of_fold=estimate
    )  # fmt: skip
    backbone = TwoHeads()
    monkeypatch.setattr(predict_command, "make_backbone", lambda *_: backbone)
    monkeypatch.setattr(predict_command, "_adapter", lambda *_: None)
    stored = SimpleNamespace(require_current=lambda *_: None, read=lambda *_: decisions)
    monkeypatch.setattr(predict_command, "Lineage", lambda _: stored)
    entries = [SimpleNamespace(name=name) for name in ("two", "silent")]
    home = SimpleNamespace(adapters=Path())
    return (
        backbone,
        decisions,
        SimpleNamespace(profile=SimpleNamespace(backbones=entries), card=load_card("polar"), home=home),
    )


def test_heads_of_a_backbone_are_scored_in_one_pass(two_heads: tuple[TwoHeads, Decisions, Any]) -> None:
    backbone, decisions, project = two_heads
    found = predict_command.new_scorer(project, decisions)(["a", "b"])
    assert list(found) == ["label"]
    assert {name: values.tolist() for name, values in found["label"].items()} == {
        "two": [1, 1], "two.types": [2, 2], "silent": [0, 0]
    }  # fmt: skip
    assert backbone.asked == [(0, 1)]


def test_rate_matching_that_new_posts_do_not_get_is_said(
    two_heads: tuple[TwoHeads, Decisions, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = two_heads[2]
    (tmp_path / "posts.csv").write_text("id,text\n1,gut\n")
    assert predict_command.predict_file(project, ["deu"], tmp_path / "posts.csv", None) == 0
    said = capsys.readouterr()
    assert said.err.startswith("deu was decided with rate matching") and "threshold 0.500 instead" in said.err
    assert said.out.splitlines()[1].startswith("1,1,0.851953,")  # sigmoid(0.25 * 1 + 0.75 * 2)


def test_each_post_is_judged_by_the_models_of_its_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the file, by as many models as it has languages; the rest need not be there."""
    made = list[str]()

    def judge(_: object, code: str, __: object = None) -> predict_command.Judge:
        made.append(code)
        estimate = Estimate(value=0.8, low=0.7, high=0.9, posts=5)
        member = Member(backbone="m", head="label", seeds=(), temperature=1.0, weight=1.0)
        decision = Decision.model_construct(
            language=code, target="label", members=(member,),
            intercept=0.0, threshold=0.5, review_margin=0.0, out_of_fold=estimate, shift_response="none",
        )  # fmt: skip
        decisions = Decisions.model_construct(
            language=code, metric="macro-F1", targets=(decision,), out_of_fold=estimate
        )
        sign = 1.0 if code == "deu" else -1.0
        return predict_command.Judge(decisions, lambda texts: {"label": {"m": np.full(len(texts), sign)}})

    monkeypatch.setattr(predict_command, "_judge", judge)
    project: Any = SimpleNamespace(card=CARD)
    posts, output = tmp_path / "posts.csv", tmp_path / "labels.csv"
    posts.write_text("id,lang,text\n1,German,eins\n2,en,two\n3,de-AT,drei\n")
    codes, reading = ["deu", "eng", "swa"], Reading(language="lang")
    assert predict_command.predict_file(project, codes, posts, output, reading=reading) == 0
    rows = list(csv.DictReader(output.open(newline="")))
    assert [(row["id"], row[CARD.label.column], row["lang"]) for row in rows] == [
        ("1", "1", "German"), ("2", "0", "en"), ("3", "1", "de-AT")
    ]  # fmt: skip
    assert made == ["deu", "eng"]
    posts.write_text("id,lang,text\n1,de,eins\n2,fr,deux\n")
    with pytest.raises(
        InputError, match=r"row 2 \(line 3\): `lang` is 'fr', which is none of the languages deu, eng, swa"
    ):
        predict_command.predict_file(project, codes, posts, output, reading=reading)
    with pytest.raises(InputError, match="has no column `language`: name the posts' language with --language"):
        predict_command.predict_file(project, codes, posts, output)


def test_a_wrong_separator_is_named(tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_text("id;text\n1;eins, zwei\n")
    with pytest.raises(InputError, match="is separated by semicolons and --sep says otherwise"):
        open_posts(tmp_path / "posts.csv", CARD, Reading(form=FileFormat(delimiter=",")), ("deu",))


BAD = (
    b"id,text\n1,gut \xc3\xa4\xc3\xb6\xc3\xbc\xc3\xa4\xc3\xb6\xc3\xbc\xc3\xa4\xc3\xb6\xc3\xbc\xc3\xa4\n"
    b"2,\n3,a,b\n1,noch einmal\n,ohne id\n4,\xff\n"
    b'5,"\xe2\x80\x8b"\n6,"offen\n7,"zwei\nZeilen"\n2,jetzt mit Text\n'
)
LEFT_OUT = [
    ["2", "3", "text", "is empty"],
    ["3", "4", "", "has 3 fields where the header has 2"],
    ["4", "5", "id", "is doubled, an earlier row has the same"],
    ["5", "6", "id", "is empty"],
    ["6", "7", "text", "is not UTF-8 (byte 0xff)"],
    ["7", "8", "text", "is empty"],
]


def test_rows_are_posts_or_say_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "posts.csv").write_bytes(BAD)
    file = open_posts(tmp_path / "posts.csv", CARD, Reading(), ("deu",))
    with file.table:
        first, second = list(read_new_posts(file)), list(read_new_posts(file))
    assert first == second
    assert [row.id for row in first if isinstance(row, Post)] == ["1", "7", "2"]
    bad = [[str(row.number), str(row.line), row.column, row.problem] for row in first if isinstance(row, BadRow)]
    assert bad[:-1] == LEFT_OUT and bad[-1][:3] == ["8", "9", ""] and bad[-1][3].startswith("is not properly quoted")


@slow
def test_bad_rows_are_left_out_and_listed(linear: tuple[Path, str], tmp_path: Path) -> None:
    posts, good, bad = tmp_path / "posts.csv", tmp_path / "good.csv", tmp_path / "bad.csv"
    posts.write_bytes(BAD)
    good.write_text('id,text\n1,gut äöüäöüäöüä\n7,"zwei\nZeilen"\n2,jetzt mit Text\n')
    done = predict(linear, posts, "--skip-bad", "--bad", str(bad))
    assert done.stdout == predict(linear, good).stdout
    listed = list(csv.reader(io.StringIO(bad.read_text())))
    assert listed[0] == ["row", "line", "column", "problem"] and listed[1:-1] == LEFT_OUT and len(listed) == 8
    assert "left out: row 2 (line 3): `text` is empty\n" in done.stderr
    assert done.stderr.count("left out: row ") == 7 and "\n3 posts, " in done.stderr
    assert predict(linear, good, "--skip-bad", "--bad", str(bad)).stdout == done.stdout
    assert bad.read_text() == "row,line,column,problem\n"
    assert predict(linear, good, "--bad", str(bad), check=False).returncode == 2


@slow
def test_many_bad_rows_are_counted(linear: tuple[Path, str], tmp_path: Path) -> None:
    posts = tmp_path / "posts.csv"
    posts.write_text("id,text\n" + "".join(f"{row},\n" for row in range(SHOWN + 13)))
    done = predict(linear, posts, "--skip-bad", "--output", str(tmp_path / "out.csv"), check=False)
    assert done.returncode == 2 and "all 33 rows are bad" in done.stderr and not (tmp_path / "out.csv").exists()
    posts.write_text(posts.read_text() + "last,gut\n")
    done = predict(linear, posts, "--skip-bad")
    assert done.stdout.count("\n") == 2 and done.stdout.splitlines()[1].startswith("last,")
    assert done.stderr.count("left out: row ") == SHOWN and "left out: 13 more bad rows\n" in done.stderr


@slow
def test_a_bad_row_at_the_end_is_found_before_anything_is_written(linear: tuple[Path, str], tmp_path: Path) -> None:
    posts = made_up(tmp_path / "posts.csv", 2 * BATCH)
    with posts.open("a") as file:
        file.write("p7,the id of row 8\n")
    output = tmp_path / "out" / "labels.csv"
    for arguments in ([], ["--output", str(output)]):
        done = predict(linear, posts, *arguments, check=False)
        assert (done.returncode, done.stdout, output.parent.exists()) == (2, "", False)
        assert f"row {2 * BATCH + 1} (line {2 * BATCH + 2}): `id` is doubled" in done.stderr


@slow
def test_batches_make_no_difference(linear: tuple[Path, str], tmp_path: Path) -> None:
    posts = made_up(tmp_path / "posts.csv", BATCH + 5)
    lines = posts.read_text().splitlines(keepends=True)
    (tmp_path / "end.csv").write_text("".join([lines[0], *lines[-5:]]))
    whole, end = (predict(linear, path).stdout.splitlines() for path in (posts, tmp_path / "end.csv"))
    assert len(whole) == BATCH + 6 and whole[-5:] == end[1:]


@slow
def test_a_reader_that_goes_away_is_no_traceback(linear: tuple[Path, str], tmp_path: Path) -> None:
    home, profile = linear
    posts = made_up(tmp_path / "posts.csv", 3 * BATCH)
    command = [sys.executable, "-m", "polar_pipeline", "predict", str(posts), "--language", "deu", "--profile", profile]
    with subprocess.Popen(
        command, env={**os.environ, "POLAR_HOME": str(home)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "id,polarization,probability,margin,review\n"
        process.stdout.close()
        assert process.wait(timeout=120) == 1 and process.stderr.read() == ""


@slow
def test_a_hundred_thousand_posts_need_little_memory_and_show_progress(
    linear: tuple[Path, str], tmp_path: Path
) -> None:
    home, profile = linear
    posts, output = made_up(tmp_path / "posts.csv", 100_000), tmp_path / "labels.csv"
    # of the children of a process of its own, so that no other test's processes count
    program = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]).returncode\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done)"
    )
    command = ["predict", str(posts), "--language", "deu", "--profile", profile, "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-c", program, sys.executable, "-m", "polar_pipeline", *command],
        env={**os.environ, "POLAR_HOME": str(home)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(done.stdout) < 700_000, f"peak of {done.stdout} kB"
    assert sum(1 for _ in output.open()) == 100_001
    line = done.stderr.splitlines()[0]
    assert " of 100,000 posts, " in line and " posts/s, about " in line and line.endswith(" s left")


@slow
def test_posts_of_another_language_are_noticed(linear: tuple[Path, str]) -> None:
    assert "in English, not in German\n" in predict(linear, bundled_folder() / "test" / "eng.csv").stderr
    assert "not in German" not in predict(linear, bundled_folder() / "test" / "deu.csv").stderr


@slow
def test_the_posts_are_never_written_over(linear: tuple[Path, str], tmp_path: Path) -> None:
    posts = tmp_path / "posts.csv"
    posts.write_text("id,text\n1,ein Satz\n")
    for option in (("--output", str(posts)), ("--skip-bad", "--bad", str(posts))):
        done = predict(linear, posts, *option, check=False)
        assert done.returncode == 2 and "names the file of the posts" in done.stderr
    assert posts.read_text() == "id,text\n1,ein Satz\n"


@slow
def test_other_columns_are_passed_through(linear: tuple[Path, str], tmp_path: Path) -> None:
    posts = tmp_path / "posts.tsv"
    posts.write_text("Kommentar\tpolarization\tautor\nein Satz\t9\tx, y\nnoch einer\t8\t\n")
    done = predict(linear, posts, "--text", "kommentar")
    rows = list(csv.reader(io.StringIO(done.stdout)))
    assert rows[0] == ["id", "polarization", "probability", "margin", "review", "polarization_given", "autor"]
    assert [(row[0], *row[5:]) for row in rows[1:]] == [("1", "9", "x, y"), ("2", "8", "")]
    assert "separated by tabs" in done.stderr and "known by the numbers of their rows" in done.stderr


@slow
def test_json_lines_are_read_from_standard_input(linear: tuple[Path, str]) -> None:
    home, profile = linear
    lines = (
        '{"id": 1, "text": "die einen und die anderen"}\n{"id": 2, "text": "noch ein Satz", "user": {"name": "x"}}\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "polar_pipeline", "predict", "-", "--profile", profile, "--language", "deu"],
        env={**os.environ, "POLAR_HOME": str(home)}, input=lines, capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["id"], row["user.name"]) for row in rows] == [("1", ""), ("2", "x")]
