"""Scores come back in the order of the rows, whatever order they were computed in."""

import numpy as np
import torch

from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.backbones.lora.scoring import score_tokens


def test_rows_get_their_own_logits_whatever_the_budget(base: BaseModel) -> None:
    rows = base.tokens(["x" * length for length in (30, 1, 60, 7, 7, 25)] + [""])
    with torch.inference_mode():
        alone = np.array([float(base.logits([row])[0]) for row in rows])
    for budget in (8, 64, 4096):
        found = score_tokens(base, rows, budget)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, alone, atol=1e-5)


def test_nothing_gives_nothing(base: BaseModel) -> None:
    assert score_tokens(base, [], 64).shape == (0,)


def test_dropout_is_off_while_scoring_and_on_again_after(base: BaseModel) -> None:
    rows = base.tokens(["a", "bc"])
    base.model.train()
    try:
        first, second = score_tokens(base, rows, 64), score_tokens(base, rows, 64)
        assert base.model.training
    finally:
        base.model.eval()
    np.testing.assert_array_equal(first, second)
