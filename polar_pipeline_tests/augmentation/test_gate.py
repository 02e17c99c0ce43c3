"""The gate chooses among the shares that the profile allows, and no other."""

import pandas as pd
import pytest

from polar_pipeline.augmentation import gate as module
from polar_pipeline.augmentation.gate import ShareResult, gate
from polar_pipeline.metrics.intervals import Interval
from polar_pipeline.settings.curation import CurationSettings
from polar_pipeline.settings.profile import Profile
from polar_pipeline.task.card import load_card


@pytest.mark.parametrize(("most", "chosen"), [(0.5, 0.5), (0.3, 0.2), (0.1, 0.0)])
def test_a_share_above_the_profiles_is_measured_and_not_chosen(
    monkeypatch: pytest.MonkeyPatch, most: float, chosen: float
) -> None:
    gains = {0.0: 0.0, 0.1: -0.01, 0.2: 0.01, 0.3: 0.005, 0.5: 0.02}
    results = [
        ShareResult(share, share, 10, 0.8 + gain, Interval(gain, gain - 0.001, gain + 0.001))
        for share, gain in gains.items()
    ]
    monkeypatch.setattr(module, "evaluate_shares", lambda *_: results)
    profile = Profile(name="x", description="", curation=CurationSettings(share=most))
    found = gate(pd.DataFrame(), "deu", load_card("polar"), profile)
    assert found.share == chosen and found.results == results
