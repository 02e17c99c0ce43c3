"""Whether logits of one adapter, computed twice, are the same as far as rounding lets them: the test of what was read back from disk.

In bfloat16 another shape of batch or another GPU rounds otherwise, in the last layers by a percent of the spread of the logits. Another
adapter of the same posts can come near that where it separates the labels well, but it puts posts of one label into another order.
"""

import numpy as np

from polar_pipeline.metrics.scores import Floats

_EXACT = 1e-4  # in float32, the largest difference
# in bfloat16, measured on tiny models: rounding moves logits by at most 0.01 of their spread and keeps 0.99 of their order, another
# seed's adapter moves them by 0.02 to 1.8 of it and keeps 0.95 at most
_SHARE = 0.1  # the typical difference, of the spread
_FLOOR = 0.02  # and where there is next to no spread: some units in the last place of a logit of 1
_ORDER = 0.97  # rank correlation
_ENOUGH = 50  # posts whose order says something


def agree(now: Floats, then: Floats, dtype: str) -> bool:
    """Whether logits float (posts,) are those of `then`, where the base is in `dtype`, such as `torch.bfloat16`. NaN is never the same."""
    gaps = np.abs(now - then)
    if dtype == "torch.float32":
        return bool(gaps.max() <= _EXACT)
    spread = float(then.std())
    if not float(np.sqrt(np.mean(gaps**2))) <= max(_SHARE * spread, _FLOOR):
        return False
    ordered = len(then) >= _ENOUGH and spread > 5 * _FLOOR
    return not ordered or float(np.corrcoef(_ranks(now), _ranks(then))[0, 1]) >= _ORDER


def _ranks(values: Floats) -> Floats:
    ranks: Floats = np.argsort(np.argsort(values)).astype(np.float64)
    return ranks
