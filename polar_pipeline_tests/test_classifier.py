"""The package from Python: frames in, answers out, with the same models as the command line."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from polar_pipeline.classifier import PolarClassifier
from polar_pipeline.errors import InputError
from polar_pipeline_tests.words import CLASSES, classed, labelled


def fitted(home: Path, frame: pd.DataFrame, **roles: Any) -> PolarClassifier:
    return PolarClassifier(home).fit(frame, text="comment", language="eng", **roles)


@pytest.mark.slow
def test_classes(tmp_path: Path) -> None:
    frame = classed(300)
    made = fitted(tmp_path, frame, label="mood")
    assert made.classes_.tolist() == sorted(CLASSES)
    new = classed(60, seed=1)
    answers, probabilities = made.predict(new["comment"].tolist()), made.predict_proba(new["comment"].tolist())
    assert np.mean(answers == new["mood"]) > 0.9
    assert probabilities.shape == (60, 3) and np.allclose(probabilities.sum(axis=1), 1)
    assert made.estimates()["eng"].value > 0.9 and made.report().read_text().count("joy") > 2
    # another process, without Dagster, gives the same answers
    code = (
        "import sys; from polar_pipeline.classifier import PolarClassifier\n"
        f"found = PolarClassifier.load({str(tmp_path)!r}).predict({new['comment'].tolist()[:5]!r})\n"
        "assert 'dagster' not in sys.modules; print(*found)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == answers[:5].tolist()
    assert {"label", "suggested"} <= set(made.label_errors().columns)


@pytest.mark.slow
def test_several_labels_and_a_binary_one_of_numbers(tmp_path: Path) -> None:
    frame = labelled(300).assign(mood=lambda table: table["joy"].astype(float))
    several = fitted(tmp_path / "several", frame, label=["joy", "grief"])
    new = labelled(60, seed=1)
    answers = several.predict(new["comment"].tolist())
    assert answers.shape == (60, 2) and np.mean(answers == new[["joy", "grief"]].to_numpy()) > 0.9
    assert several.classes_.tolist() == ["joy", "grief"]
    one = fitted(tmp_path / "one", frame.assign(mood=frame["mood"].where(frame.index > 5)), label="mood")
    assert one.classes_.tolist() == [0, 1]
    assert np.mean(one.predict(new["comment"].tolist()) == new["joy"]) > 0.9


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    made = PolarClassifier(tmp_path)
    with pytest.raises(InputError, match="nothing is fitted yet"):
        made.predict(["a"])
    with pytest.raises(InputError, match="has no column `label`: it has comment, mood"):
        made.fit(classed(10), text="comment", label="label", language="eng")
    with pytest.raises(InputError, match="unknown"):
        PolarClassifier.load(tmp_path)
    with pytest.raises(InputError, match="no language"):
        made.fit(classed(30), text="comment", label="mood", language="no such tongue")


@pytest.mark.slow
@pytest.mark.parametrize("values", [("0", "1"), (False, True), (0, 1), ("no", "yes")])
def test_answers_have_the_type_of_the_labels_in_a_script_without_a_guard(
    values: tuple[Any, Any], tmp_path: Path
) -> None:
    """The script is run as people write them: nothing around the fit."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom sklearn.metrics import f1_score\n"
        "from polar_pipeline.classifier import PolarClassifier\nfrom polar_pipeline_tests.words import labelled\n"
        f"values = {values!r}\n"
        "frame = labelled(200).assign(mood=lambda table: [values[joy] for joy in table['joy']])\n"
        f"made = PolarClassifier({str(tmp_path / 'home')!r}).fit(frame, text='comment', label='mood', language='eng')\n"
        "answers = PolarClassifier.load(made.home).predict(frame['comment'].tolist())\n"
        "print(f1_score(frame['mood'], list(answers), average='macro'), Path(__file__).name)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    score, name = done.stdout.splitlines()[-1].split()
    assert float(score) > 0.9 and name == "script.py"


@pytest.mark.slow
def test_a_fit_in_another_thread(tmp_path: Path) -> None:
    found: list[PolarClassifier] = []
    thread = threading.Thread(target=lambda: found.append(fitted(tmp_path, classed(200), label="mood")))
    thread.start()
    thread.join()
    assert len(found) == 1
