"""The predictions file: what a person opens to see which test posts are called positive, and how surely."""

from pathlib import Path

import pandas as pd

from polar_pipeline.storage.files import write_atomic
from polar_pipeline.task.card import TaskCard


def write_predictions(path: Path, predictions: pd.DataFrame, card: TaskCard) -> Path:
    """Write the test rows as CSV: id, label, probability (six decimals), in the order of the test file. Atomic."""
    test = predictions[predictions["split"] == "test"]
    frame = pd.DataFrame({"id": test["id"], card.label.column: test["prediction"], "probability": test["probability"]})
    return write_atomic(path, frame.to_csv(index=False, float_format="%.6f", lineterminator="\n").encode("utf-8"))
