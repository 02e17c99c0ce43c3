"""The zip is exactly what the scorer takes, to the byte, and nothing else is let through."""

import io
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from polar_pipeline.errors import InputError
from polar_pipeline.report.submission import submission_problems, write_submission
from polar_pipeline.task.card import load_card

CARD = load_card("polar")
GOOD = pd.DataFrame(
    {"id": ["t", "b", "a"], "split": ["train", "test", "test"], "prediction": [1, 0, 1], "probability": 0.5}
).assign(target="label", margin=0.0, review=False)


def test_exact_content_in_the_order_of_the_test_file(tmp_path: Path) -> None:
    path = write_submission(tmp_path / "submission.zip", {"swa": GOOD, "deu": GOOD}, CARD)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["subtask_1/pred_deu.csv", "subtask_1/pred_swa.csv"]
        assert archive.read("subtask_1/pred_deu.csv") == b"id,polarization\nb,0\na,1\n"
        assert archive.testzip() is None


def test_same_bytes_whatever_the_time_and_the_order(tmp_path: Path) -> None:
    one = write_submission(tmp_path / "1.zip", {"swa": GOOD, "deu": GOOD}, CARD).read_bytes()
    assert write_submission(tmp_path / "2.zip", {"deu": GOOD, "swa": GOOD}, CARD).read_bytes() == one
    with zipfile.ZipFile(io.BytesIO(one)) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_a_language_without_test_posts_has_a_file_without_rows(tmp_path: Path) -> None:
    path = write_submission(tmp_path / "1.zip", {"deu": GOOD.assign(split="dev"), "swa": GOOD}, CARD)
    with zipfile.ZipFile(path) as archive:
        assert archive.read("subtask_1/pred_deu.csv") == b"id,polarization\n"
    assert submission_problems(path, {"deu": GOOD.assign(split="dev"), "swa": GOOD}, CARD) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "a"}, "empty or doubled id"),
        ({"id": ["t", "b", ""]}, "empty or doubled id"),
        ({"prediction": [1, 2, 0]}, "not 0 or 1"),
        ({"prediction": [1, None, 0]}, "not 0 or 1"),
    ],
)
def test_what_the_scorer_would_refuse_is_refused_and_nothing_is_written(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=f"predictions of deu.*{message}.*materialize"):
        write_submission(tmp_path / "submission.zip", {"deu": GOOD.assign(**change)}, CARD)
    assert list(tmp_path.iterdir()) == []
