"""Rows are taken by mask or by number, and keep together."""

import numpy as np

from polar_pipeline.backbones.lora.rows import Rows

ROWS = Rows([np.ones(n, dtype=np.int64) for n in (3, 1, 2)], np.array([0, 1, 1]), np.array([False, False, True]))


def test_masks_and_numbers() -> None:
    assert ROWS.lengths.tolist() == [3, 1, 2]
    masked, numbered = ROWS.take(np.array([True, False, True])), ROWS.take(np.array([2, 0]))
    assert masked.lengths.tolist() == [3, 2] and masked.labels.tolist() == [0, 1]
    assert numbered.lengths.tolist() == [2, 3] and numbered.synthetic.tolist() == [True, False]


def test_none() -> None:
    none = ROWS.take(np.zeros(3, dtype=bool))
    assert none.tokens == [] and none.lengths.shape == (0,) and none.labels.shape == (0,)
