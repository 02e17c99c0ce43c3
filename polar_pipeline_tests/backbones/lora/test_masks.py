"""No mask is told only where none is needed: with a window that is shorter than a row it would be wrong."""

import numpy as np
import pytest
import torch

from polar_pipeline.backbones.lora import base_model
from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.backbones.lora.masks import causal_mask
from polar_pipeline_tests.backbones.lora.examples import Reads

WINDOW = 32  # of the tiny Gemma 3


def rows(*lengths: int) -> list[np.ndarray]:
    return [np.random.default_rng(length).integers(4, 260, length) for length in lengths]


def logits(base: BaseModel, given: list[np.ndarray], monkeypatch: pytest.MonkeyPatch, mask: object) -> torch.Tensor:
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(base_model, "causal_mask", mask)
        return base.logits(given)


@pytest.mark.parametrize("lengths", [(3, 31, 9), (WINDOW, 5), (WINDOW + 1, 5), (64, 40, 33, 2)])
def test_logits_are_those_with_the_masks_of_transformers(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch, lengths: tuple[int, ...]
) -> None:
    given = rows(*lengths)
    expected = logits(base, given, monkeypatch, lambda *_: None)
    torch.testing.assert_close(logits(base, given, monkeypatch, causal_mask), expected, atol=1e-6, rtol=0)


def test_a_row_longer_than_the_window_needs_a_mask(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trap is real: told that there is none, attention sees past the window."""
    if "gemma3" not in base.name:
        assert "qwen3" not in base.name or causal_mask(base.model.config, 900) == {"full_attention": None}
        return
    config = base.model.config
    wrong = logits(base, rows(WINDOW + 8), monkeypatch, lambda *_: dict.fromkeys(config.layer_types))
    right = logits(base, rows(WINDOW + 8), monkeypatch, causal_mask)
    assert float((wrong - right).abs().max()) > 1e-4
    assert causal_mask(config, WINDOW) == {"full_attention": None, "sliding_attention": None}
    assert causal_mask(config, WINDOW + 1) is None


def test_other_attention_and_other_models_are_left_to_transformers(base: BaseModel) -> None:
    config = base.model.config
    before = config._attn_implementation
    try:
        config._attn_implementation = "eager"  # which sees everything where no mask is given
        assert causal_mask(config, 8) is None
    finally:
        config._attn_implementation = before
    if "roberta" in base.name:
        assert causal_mask(config, 8) is None


def test_nothing_is_read_back_in_a_forward_and_backward_pass(base: BaseModel) -> None:
    if not base.causal:
        return
    base.model.requires_grad_(True)
    try:
        with Reads() as reads:
            base.logits(rows(5, 9)).sum().backward()
    finally:
        base.model.requires_grad_(False)
        base.model.zero_grad()
    assert reads.count == 0
