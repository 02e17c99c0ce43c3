"""The reference figures are the leaderboard's."""

import numpy as np

from polar_pipeline.report.comparison import load_reference
from polar_pipeline.task.languages import LANGUAGES


def test_all_languages_with_the_published_means() -> None:
    reference = load_reference()
    assert list(reference) == sorted(LANGUAGES)
    np.testing.assert_allclose(np.mean(list(reference.values()), axis=0), [0.7603, 0.8115, 0.8180, 0.8335], atol=5e-5)
    # the baseline is not ranked, so it may be above the best team
    assert all(item.best >= max(item.runner_up, item.winner) for item in reference.values())
