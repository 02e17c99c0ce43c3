"""The predictions file holds the test rows only, in their order, to the byte."""

from pathlib import Path

import pandas as pd

from polar_pipeline.decision.predictions import write_predictions
from polar_pipeline.task.card import load_card


def test_exact_bytes(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "id": ["t1", "b", "a"],
            "split": ["train", "test", "test"],
            "probability": [0.9, 1 / 3, 1.0],
            "prediction": [1, 0, 1],
        }
    )
    path = write_predictions(tmp_path / "deu.csv", frame, load_card("polar"))
    assert path.read_bytes() == b"id,polarization,probability\nb,0,0.333333\na,1,1.000000\n"
