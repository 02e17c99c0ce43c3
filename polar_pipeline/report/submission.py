"""submission.zip, exactly as the task's scorer wants it. Same predictions, same bytes."""

import io
import zipfile
from pathlib import Path

import pandas as pd

from polar_pipeline.decision.predictions import answer_columns, answers
from polar_pipeline.errors import InputError
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.task.card import TaskCard

_EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip entry must have a date; a fixed one keeps the bytes the same


def write_submission(path: Path, predictions: dict[str, pd.DataFrame], card: TaskCard) -> Path:
    """Write the test labels of each language as `<folder>/<file>` inside a zip: id and labels. Atomic.

    A language without test posts has a file without rows. Raises InputError for an empty or doubled id, or a label
    outside {0, 1}.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for code in sorted(predictions):
            test = predictions[code][predictions[code]["split"] == "test"]
            _check(code, test)
            entry = zipfile.ZipInfo(f"{card.submission.folder}/{card.submission.file.format(language=code)}", _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            archive.writestr(entry, _table(test, card).to_csv(index=False, lineterminator="\n"))
    return write_atomic(path, buffer.getvalue())


def _table(test: pd.DataFrame, card: TaskCard) -> pd.DataFrame:
    """Id and labels of each post, in the card's words."""
    found: pd.DataFrame = answers(test, card)[["id", *answer_columns(card)]]
    return found


def _check(code: str, test: pd.DataFrame) -> None:
    remedy = f"materialize ensemble_predictions for {code} again"
    if test["id"].isna().any() or (test["id"] == "").any() or test.duplicated(["target", "id"]).any():
        raise InputError(f"predictions of {code} have an empty or doubled id: {remedy}.")
    if not test["prediction"].isin((0, 1)).all():
        raise InputError(f"predictions of {code} have a label that is not 0 or 1: {remedy}.")


def submission_problems(path: Path, predictions: dict[str, pd.DataFrame], card: TaskCard) -> list[str]:
    """What is wrong with a written zip beside the predictions that it should hold, in words; empty when nothing is."""
    wanted = {f"{card.submission.folder}/{card.submission.file.format(language=code)}": code for code in predictions}
    found = []
    with zipfile.ZipFile(path) as archive:
        if set(archive.namelist()) != set(wanted):
            found.append(f"it holds {len(archive.namelist())} files and should hold {len(wanted)}")
        for name in set(archive.namelist()) & set(wanted):
            with archive.open(name) as file:
                rows = pd.read_csv(file, dtype=str, keep_default_na=False)
            test = _table(predictions[wanted[name]].query("split == 'test'"), card)
            if (
                list(rows.columns) != list(test.columns)
                or rows.to_numpy().tolist() != test.astype(str).to_numpy().tolist()
            ):
                found.append(f"{name} does not hold the predictions of {wanted[name]}")
    return found
