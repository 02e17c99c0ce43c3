"""The gate: which share of synthetic posts a language trains with, by what they do for the cheapest backbone."""

from typing import NamedTuple

import pandas as pd

from polar_pipeline.backbones.factory import make_backbone
from polar_pipeline.decision.augmentation import ShareResult, evaluate_shares, helpful_share
from polar_pipeline.settings.backbones import LinearSettings
from polar_pipeline.settings.profile import Profile
from polar_pipeline.task.card import TaskCard


class Gate(NamedTuple):
    """The share that helps beyond the error, 0 when none does, and what every share did."""

    share: float
    results: list[ShareResult]


def gate(curated: pd.DataFrame, language: str, card: TaskCard, profile: Profile) -> Gate:
    """Shares above the profile's are measured too, but not chosen. `curated` is what `curate` returned."""
    own = next((entry for entry in profile.backbones if isinstance(entry, LinearSettings)), LinearSettings())
    results = evaluate_shares(curated, language, card, profile, make_backbone(own, profile))
    most = profile.curation.of(language).share
    return Gate(helpful_share([result for result in results if result.asked <= most]), results)
