"""Scores come back in the order of the rows, whatever order they were computed in."""

import numpy as np
import pytest
import torch

from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.backbones.lora.scoring import score_tokens
from polar_pipeline.errors import InputError


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


def test_out_of_memory_halves_the_batches(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = base.tokens(["a" * 5, "b" * 9, "c" * 3, "d" * 7] * 4)
    expected, whole, sizes = score_tokens(base, rows, 16), BaseModel.logits, []

    def small(mine: BaseModel, batch: list[np.ndarray]) -> torch.Tensor:
        sizes.append(len(batch) * max(map(len, batch)))
        if sizes[-1] > 20:
            raise torch.OutOfMemoryError
        return whole(mine, batch)

    monkeypatch.setattr(BaseModel, "logits", small)
    np.testing.assert_allclose(score_tokens(base, rows, 16), expected, atol=1e-5)
    assert max(sizes) > 20 and not base.model.training
    monkeypatch.setattr(BaseModel, "logits", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError))
    with pytest.raises(InputError, match="not enough memory to score"):
        score_tokens(base, rows, 16)
