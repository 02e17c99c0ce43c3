"""Memory is counted before a model is loaded, decides about recomputing, and what ran out is let go of first."""

import weakref
from pathlib import Path

import pytest
import torch

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora import loading, memory, optimizer, training
from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.backbones.lora.loading import load_base
from polar_pipeline.backbones.lora.memory import (
    BatchSplitter,
    activation_bytes,
    none_if_out_of_memory,
    should_recompute,
    weight_bytes,
)
from polar_pipeline.backbones.lora.training import train_model
from polar_pipeline.backbones.lora.tunable import AdaptedModel
from polar_pipeline.errors import InputError
from polar_pipeline_tests.backbones.lora.examples import fit, settings


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


def test_activations_are_counted_with_the_adapter_in_place_and_leave_nothing(slot: AdaptedModel) -> None:
    slot.fresh(1)
    found = activation_bytes(slot.base)
    assert 5_000 < found < 100_000  # of 6 layers of width 64 in float32
    assert activation_bytes(slot.base) == found
    assert all(parameter.grad is None for parameter in slot.parameters().values())


def test_activations_are_no_weights(slot: AdaptedModel) -> None:
    """Of one layer by hand, in float32: what grows with the row is counted, the same per token at any rank."""
    slot.fresh(1)
    small = activation_bytes(slot.base)
    slot.configure(settings(rank=64))
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


def test_what_fits_is_not_computed_twice(slot: AdaptedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    slot.fresh(1)
    needed = activation_bytes(slot.base) * 128
    for free, expected in ((needed / 0.81, True), (needed / 0.79, False)):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        assert should_recompute(slot.base, settings(recompute="auto")) is expected
    assert should_recompute(slot.base, settings(recompute="always"))
    assert not should_recompute(slot.base, settings(recompute="never"))


class Graph:
    """Something that a failed call holds in its frame, in a circle as autograd's are."""

    def __init__(self) -> None:
        self.itself = self


def test_the_failed_call_holds_nothing_when_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the handler, the traceback would hold the frame, and the frame the tensors."""
    held: list[weakref.ref[Graph]] = []
    alive: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(held[-1]() is not None))

    def work() -> int:
        graph = Graph()
        held.append(weakref.ref(graph))
        raise torch.OutOfMemoryError

    assert none_if_out_of_memory(work) is None
    assert alive == [False]


def test_halves_once_and_then_a_sentence() -> None:
    said: list[str] = []
    for most in (1, 2, 0):
        splitter = BatchSplitter(settings(), Progress(said.append))

        def work(splitter: BatchSplitter = splitter, most: int = most) -> int:
            if splitter.parts > most > 0:
                raise AssertionError("split though it fits")
            if splitter.parts < most or not most:
                raise torch.OutOfMemoryError
            return splitter.parts

        if most:
            assert splitter.compute("deu", work) == most
        else:
            with pytest.raises(InputError, match="half of token_budget 128 either: lower it, set four_bit"):
                splitter.compute("deu", work)
    assert said == ["deu: out of memory, so each batch is computed in two halves from now on"] * 2


def exhausted(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("place", ["optimizer", "probe", "fresh"])
def test_memory_that_runs_out_elsewhere_in_training_is_a_sentence(
    slot: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    if place == "optimizer":
        monkeypatch.setattr(optimizer.Optimizer, "step", exhausted)
    elif place == "probe":
        monkeypatch.setattr(training, "should_recompute", exhausted)
    else:
        monkeypatch.setattr(AdaptedModel, "fresh", exhausted)
    with pytest.raises(InputError, match=r"'tiny' has not enough memory to train beside its base: lower token_budget"):
        train_model(slot, fit(slot.base), settings(), tmp_path / "checkpoint", Progress())
    assert not slot.base.model.training


def test_memory_that_runs_out_while_loading_is_a_sentence(bases_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_weights", exhausted)
    with pytest.raises(
        InputError, match=r"'tiny:gemma3' of backbone 'tiny' ran out of memory while it was loaded: set"
    ):
        load_base(settings(), bases_root)


def test_a_step_is_tried_again_from_nothing(
    slot: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients of the part that had been computed are forgotten, or they would count twice."""
    backward, calls = torch.Tensor.backward, 0

    def second_fails(tensor: torch.Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise torch.OutOfMemoryError
        backward(tensor)

    chosen = settings(token_budget=64, accumulate=100)
    train_model(slot, fit(slot.base), chosen, tmp_path / "a", Progress())
    expected = {name: value.detach().clone() for name, value in slot.parameters().items()}
    monkeypatch.setattr(torch.Tensor, "backward", second_fails)
    train_model(slot, fit(slot.base), chosen, tmp_path / "b", Progress())
    assert calls > 3
    for name, value in slot.parameters().items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=0)
