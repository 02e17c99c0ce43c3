"""Several adapters in one base give the logits and gradients that PEFT gives for each, and leave no trace."""

from pathlib import Path

import numpy as np
import pytest
import torch

from polar_pipeline.backbones.lora.adapter import Slot
from polar_pipeline.backbones.lora.blocks import blocks
from polar_pipeline.backbones.lora.loading import load_base
from polar_pipeline.backbones.lora.stacked import Stack
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import LoraSettings

ROWS = [np.arange(4, 4 + length) for length in (3, 9, 5)]


@pytest.fixture(params=["tiny:gemma3", "tiny:xlm_roberta"])
def slot(request: pytest.FixtureRequest, tmp_path: Path) -> Slot:
    settings = LoraSettings(name="t", kind="lora", model=request.param, device="cpu", rank=4, alpha=12, max_length=32)
    return Slot(load_base(settings, tmp_path), settings)


def drawn(slot: Slot, seed: int) -> dict[str, torch.Tensor]:
    """An adapter that changes something, left in the slot."""
    random = torch.Generator().manual_seed(seed)
    parameters = slot.fresh(seed)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.copy_(torch.randn(parameter.shape, generator=random) * 0.1)
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def with_forward(slot: Slot) -> set[str]:
    """Layers whose forward pass is not their class's: the fused norms are such, before and after."""
    return {name for name, module in slot.base.model.named_modules() if "forward" in module.__dict__}


def test_logits_and_gradients_are_those_of_each_adapter_in_peft(slot: Slot) -> None:
    states: list[dict[str, torch.Tensor]] = []
    logits: list[torch.Tensor] = []
    gradients: list[dict[str, torch.Tensor]] = []
    for seed in range(3):
        states.append(drawn(slot, seed))
        found = slot.base.logits(ROWS)
        found.sum().backward()
        logits.append(found.detach())
        gradients.append({name: parameter.grad for name, parameter in slot.parameters().items()})
    slot.empty()
    stack = Stack(slot.base, states, 12 / 4)
    stack.enter()
    for used in (range(3), range(1, 3), range(2, 3)):
        stack.zero()
        stack.use(used)
        found = slot.base.logits(ROWS * len(used))
        stack.backward(found.sum())
        torch.testing.assert_close(found.detach(), torch.cat([logits[place] for place in used]), atol=1e-5, rtol=1e-4)
        for place in range(3):
            expected = torch.cat([gradient.reshape(-1) for gradient in gradients[place].values()])
            mine = stack.trained(place)["torch.float32"].grad
            torch.testing.assert_close(mine, expected if place in used else expected * 0, atol=1e-4, rtol=1e-3)
    stack.leave()


def test_the_model_is_what_it_was_once_the_adapters_leave(slot: Slot) -> None:
    before, replaced = slot.base.logits(ROWS).detach(), with_forward(slot)
    states = [drawn(slot, seed) for seed in range(2)]
    slot.empty()
    stack = Stack(slot.base, states, 1.0)
    stack.enter()
    stack.use(range(1))
    assert not torch.equal(slot.base.logits(ROWS), before)
    stack.leave()
    assert torch.equal(slot.base.logits(ROWS), before)
    assert with_forward(slot) == replaced


def test_a_state_comes_out_as_it_went_in(slot: Slot) -> None:
    states = [drawn(slot, seed) for seed in range(2)]
    stack = Stack(slot.base, states, 1.0)
    for place, state in enumerate(states):
        found = stack.state(place)
        assert list(found) == list(state)
        assert all(torch.equal(found[name], state[name]) for name in state)


def test_what_is_no_linear_layer_is_refused(slot: Slot) -> None:
    replaced, state = with_forward(slot), drawn(slot, 0)
    slot.empty()
    strange = state | {"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(4, 8)}
    with pytest.raises(InputError, match="set together to 1"):
        Stack(slot.base, [strange], 1.0).enter()
    assert with_forward(slot) == replaced


def test_blocks_join_like_shapes_and_part_unlike_ones() -> None:
    assert blocks([(8, 16), (8, 17), (8, 15)]) == [range(3)]
    assert blocks([(128, 16), (128, 16), (8, 256), (8, 250)]) == [range(2), range(2, 4)]
    assert blocks([(8, 16), (0, 0), (0, 0)]) == [range(1)]
    assert blocks([(0, 0), (8, 16), (0, 0), (8, 16)]) in ([range(1, 4)], [range(1, 2), range(3, 4)])
    assert blocks([(0, 0)]) == []
