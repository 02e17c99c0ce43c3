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


def test_activations_are_no_weights(slot: Slot) -> None:
    """Of one layer by hand, in float32: what grows with the row is counted, the same per token at any length and rank."""
    slot.fresh(1)
    small = activation_bytes(slot.base)
    slot.use(settings(rank=64))
    slot.fresh(1)
    layers, each = 6, 4 * (64 - 4)  # every layer keeps as many more numbers a token for each of its seven A's
    assert activation_bytes(slot.base) - small == layers * 7 * each


def test_blocks_that_torch_keeps_for_later_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or layers would be computed twice from the second model of a process on."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (3 * 2**30, 80 * 2**30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: 70 * 2**30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 22 * 2**30)
    assert memory.free_bytes("cuda") == 51 * 2**30
    assert memory.free_bytes("cpu") != 51 * 2**30


@pytest.mark.parametrize(("tuning", "needed"), [("lora", 1.1), ("full", 4.0)])
def test_weights_alone_are_not_enough(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch, tuning: str, needed: float
) -> None:
    chosen = settings(tuning=tuning)
    weights = weight_bytes(type(base.model), base.model.config, False, torch.float32)
    given = (type(base.model), base.model.config, chosen, "cpu", torch.float32)
    monkeypatch.setattr(memory, "free_bytes", lambda device: weights * needed * 1.01)
    memory.refuse_too_large(*given)
    monkeypatch.setattr(memory, "free_bytes", lambda device: weights * needed * 0.99)
    with pytest.raises(memory.TooLarge, match=r"for its weights and .* beside them, and cpu has"):
        memory.refuse_too_large(*given)


def test_what_fits_is_not_computed_twice(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    slot.fresh(1)
    needed = activation_bytes(slot.base) * 128
    for free, expected in ((needed / 0.81, True), (needed / 0.79, False)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        assert should_recompute(slot.base, settings(recompute="auto")) is expected
    assert should_recompute(slot.base, settings(recompute="always"))
    assert not should_recompute(slot.base, settings(recompute="never"))
