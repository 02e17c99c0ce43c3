"""Memory is counted before a model is loaded, and decides whether layers are computed twice."""

import pytest
import torch

from polar_pipeline.backbones.lora import memory
from polar_pipeline.backbones.lora.adapter import Slot
from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.backbones.lora.memory import activation_bytes, should_recompute, weight_bytes
from polar_pipeline_tests.backbones.lora.examples import settings


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_those_of_the_loaded_weights(base: BaseModel, dtype: torch.dtype) -> None:
    counted = weight_bytes(type(base.model), base.model.config, False, dtype)
    assert counted == sum(weight.numel() for weight in base.model.parameters()) * dtype.itemsize


def test_four_bit_shrinks_linear_layers_to_half_a_byte_and_a_bit(base: BaseModel) -> None:
    linear = sum(m.weight.numel() for m in base.model.modules() if isinstance(m, torch.nn.Linear))
    whole, small = (weight_bytes(type(base.model), base.model.config, four, torch.bfloat16) for four in (False, True))
    saved = (whole - small) / linear
    assert 1.48 < saved < 1.5  # of 2 bytes a weight, 0.508 stay


def test_gemma_27b_fits_24_gb_in_four_bit_alone() -> None:
    """The published shape; nothing is allocated."""
    from transformers import Gemma3TextConfig, Gemma3TextForSequenceClassification

    config = Gemma3TextConfig(
        vocab_size=262_208, hidden_size=5376, intermediate_size=21_504, num_hidden_layers=62,
        num_attention_heads=32, num_key_value_heads=16, head_dim=128, num_labels=1,
    )  # fmt: skip
    whole, small = (
        weight_bytes(Gemma3TextForSequenceClassification, config, four, torch.bfloat16) for four in (False, True)
    )
    assert 50 < whole / 2**30 < 52
    assert 14 < small / 2**30 < 16


def test_activations_are_counted_with_the_adapter_in_place_and_leave_nothing(slot: Slot) -> None:
    slot.fresh(1)
    found = activation_bytes(slot.base)
    assert 5_000 < found < 100_000  # of 6 layers of width 64 in float32
    assert activation_bytes(slot.base) == found
    assert all(parameter.grad is None for parameter in slot.parameters().values())


def test_what_fits_is_not_computed_twice(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    slot.fresh(1)
    needed = activation_bytes(slot.base) * 128
    for free, expected in ((needed / 0.81, True), (needed / 0.79, False)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        assert should_recompute(slot.base, settings(recompute="auto")) is expected
    assert should_recompute(slot.base, settings(recompute="always"))
    assert not should_recompute(slot.base, settings(recompute="never"))
