"""Reference figures: official test scores of others, so that a score can be placed.

`reference.csv` holds macro-F1 of subtask 1 by language, from the official leaderboard: the organisers' baseline, PSK (2nd),
UTokyo Tsuruoka Lab (1st), and the best of any ranked team in that language. The baseline is not ranked; in Persian it beat all teams.
"""

import csv
from importlib import resources
from typing import NamedTuple


class Reference(NamedTuple):
    """Official test macro-F1 of one language."""

    baseline: float
    psk: float
    winner: float
    best: float


def load_reference() -> dict[str, Reference]:
    """Reference figures by language code."""
    text = (resources.files("polar_pipeline.report") / "reference.csv").read_text(encoding="utf-8")
    return {
        row["language"]: Reference(*(float(row[name]) for name in Reference._fields))
        for row in csv.DictReader(text.splitlines())
    }
