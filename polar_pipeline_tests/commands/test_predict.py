"""`polar predict`: new posts get what the same posts get in the graph, and every mistake is one sentence."""

import csv
import io
import shutil
from pathlib import Path

import pandas as pd
import pytest

from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline_tests.conftest import polar

pytestmark = pytest.mark.slow


def test_posts_of_test_get_the_predictions_that_the_graph_made(finished_home: Path, tmp_path: Path) -> None:
    posts = bundled_folder() / "test" / "deu.csv"
    done = polar(finished_home, "predict", str(posts), "--language", "deu", "--profile", "demo")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    with (finished_home / "predictions" / "deu.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    assert [{key: row[key] for key in expected[0]} for row in rows] == expected
    table = pd.read_parquet(finished_home / "artifacts" / "ensemble_predictions" / "deu.parquet")
    assert [row["review"] == "True" for row in rows] == table.loc[table["split"] == "test", "review"].tolist()
    assert f"{len(rows)} posts, " in done.stderr and "macro-F1" in done.stderr
    output = tmp_path / "out" / "labels.csv"
    polar(
        finished_home, "predict", str(posts), "--language", "deu", "--profile", "demo", "--output", str(output)
    )  # fmt: skip
    assert output.read_text() == done.stdout


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("id,words\n1,x\n", "posts.csv lacks the column text: it should have id and text."),
        ("id,text\n1,x\n1,y\n", "row 2 (line 3): `id` is empty or doubled: correct it."),
        ("id,text\n1,x\n2,  \n", "row 2 (line 3): `text` is empty: correct it."),
        ("id,text\n", "holds a header and no row"),
        (None, "does not exist: give a CSV file with the columns id and text."),
    ],
)
def test_bad_files(finished_home: Path, tmp_path: Path, content: str | None, sentence: str) -> None:
    path = tmp_path / "posts.csv"
    if content is not None:
        path.write_text(content)
    done = polar(finished_home, "predict", str(path), "--language", "deu", "--profile", "demo", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr and "Traceback" not in done.stderr


def test_what_was_not_decided_or_has_changed_is_refused(finished_home: Path, tmp_path: Path) -> None:
    posts = str(bundled_folder() / "test" / "deu.csv")
    done = polar(tmp_path / "empty", "predict", posts, "--language", "deu", "--profile", "demo", check=False)
    assert done.returncode == 2 and "deu has not been decided in" in done.stderr
    home = tmp_path / "home"
    shutil.copytree(finished_home / "artifacts", home / "artifacts")
    own = tmp_path / "own.yaml"
    demo = Path(__file__).parents[2] / "polar_pipeline" / "profiles" / "demo.yaml"
    own.write_text(
        demo.read_text(encoding="utf-8").replace("  resamples: 200\n", "  resamples: 100\n"), encoding="utf-8"
    )
    done = polar(home, "predict", posts, "--language", "deu", "--profile", str(own), check=False)
    assert done.returncode == 2 and "was made with other settings than profile" in done.stderr
    adapter = home / "artifacts" / "linear_adapter" / "deu.json"
    adapter.write_text((adapter.parent / "eng.json").read_text())
    done = polar(home, "predict", posts, "--language", "deu", "--profile", "demo", check=False)
    assert done.returncode == 2 and "is not the one that was decided with" in done.stderr
