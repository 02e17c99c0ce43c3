"""Official test scores of other systems, to compare a run with.

`reference.csv` holds macro-F1 of subtask 1 by language, from the official leaderboard: the organisers' baseline, PSK
(second), UTokyo Tsuruoka Lab (first), and the best ranked team of each language. The baseline is not ranked; in Persian
it beat all teams.
"""

import csv
from importlib import resources
from typing import NamedTuple

from polar_pipeline.settings.profile import Profile


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


def comparable_reference(profile: Profile) -> dict[str, Reference]:
    """The reference figures, or none for another task than the default one or for made-up posts."""
    official = profile.data != "bundled" and profile.task == Profile.model_fields["task"].default
    return load_reference() if official else {}
