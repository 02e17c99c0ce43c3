"""Every row of an epoch counts the same, whatever step it falls into."""

import numpy as np

from polar_pipeline.backbones.lora.rows import Rows
from polar_pipeline.backbones.lora.schedule import divisors, schedule, step_weights
from polar_pipeline_tests.backbones.lora.examples import settings


def rows_of(lengths: list[int], synthetic: list[int] | None = None) -> Rows:
    mask = np.isin(np.arange(len(lengths)), synthetic or [])
    return Rows([np.ones(length, dtype=np.int64) for length in lengths], np.zeros(len(lengths), dtype=int), mask)


def test_a_long_post_counts_as_much_as_a_short_one() -> None:
    rows = rows_of([32] * 8 + [2] * 128)
    steps = schedule(rows, settings(token_budget=64, epochs=2), seed=1)
    counts = {len(np.concatenate(step.batches)) for step in steps}
    assert max(counts) >= 16 * min(counts)
    by = divisors(steps, np.ones(136))
    shares = np.zeros((2, 136))
    epoch = np.cumsum([0, *[step.ends_epoch for step in steps]])
    for place, step in enumerate(steps):
        shares[epoch[place], np.concatenate(step.batches)] += 1 / by[place]
    np.testing.assert_allclose(shares, shares[0, 0])
    # and a step's gradient is as large on average as that of a mean over its rows
    assert np.isclose((step_weights(steps, np.ones(136)) / by).mean(), 1)


def test_epochs_have_divisors_of_their_own_and_weights_count() -> None:
    rows = rows_of([8] * 12, synthetic=[0, 1, 2, 3])
    steps = schedule(rows, settings(synthetic="warm_up", token_budget=32), seed=1)
    assert [step.warm_up for step in steps] == [True, False, False]
    weights = np.where(rows.synthetic, 3.0, 1.0)
    assert divisors(steps, weights).tolist() == [12, 4, 4]
    assert (divisors(steps, weights * 0) > 0).all()
    assert divisors([], weights).tolist() == []
