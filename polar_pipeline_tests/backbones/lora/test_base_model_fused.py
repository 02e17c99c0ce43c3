"""Fused norms and layers give what transformers and PEFT give, in values and gradients."""

from pathlib import Path

import pytest
import torch

from polar_pipeline.backbones.lora import tunable
from polar_pipeline.backbones.lora.base_model import fuse_adapter, fuse_norms
from polar_pipeline.backbones.lora.loading import load_base
from polar_pipeline.backbones.lora.tunable import AdaptedModel
from polar_pipeline_tests.backbones.lora.examples import settings


@pytest.mark.parametrize("shape", ["gemma3", "qwen3"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("bfloat16", 2e-2)])
def test_values_and_gradients_are_those_of_transformers(
    bases_root: Path, shape: str, dtype: str, tolerance: float
) -> None:
    model = load_base(settings(model=f"tiny:{shape}", dtype=dtype), bases_root).model
    random = torch.Generator().manual_seed(1)
    norm = model.model.layers[1].input_layernorm
    inputs = (torch.randn(3, 5, 64, generator=random) * 4).to(norm.weight.dtype).requires_grad_()
    outer = torch.randn(3, 5, 64, generator=random).to(norm.weight.dtype)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(64, generator=random) * 0.3 + 0.5)
    norm.__dict__.pop("forward")
    plain = norm(inputs)
    (expected,) = torch.autograd.grad(plain, inputs, outer)
    assert fuse_norms(model) == len([name for name, _ in model.named_parameters() if "norm" in name])
    assert "forward" in norm.__dict__
    fused = norm(inputs)
    (found,) = torch.autograd.grad(fused, inputs, outer)
    assert fused.dtype == plain.dtype
    torch.testing.assert_close(fused, plain, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_a_loaded_base_has_them_and_keeps_its_names(bases_root: Path) -> None:
    def fused(**changes: object) -> tuple[int, set[str]]:
        model = load_base(settings(**changes), bases_root).model
        return sum("forward" in module.__dict__ for module in model.modules()), set(model.state_dict())

    (frozen, names), (trained, same) = fused(), fused(tuning="full")
    assert (frozen, trained) == (6 * 6 + 1, 0)
    assert names == same
    assert fused(model="tiny:xlm_roberta")[0] == 0


def test_norms_that_are_trained_are_refused(bases_root: Path) -> None:
    model = load_base(settings(tuning="full"), bases_root).model.requires_grad_(True)
    with pytest.raises(ValueError, match="cannot be prepared"):
        fuse_norms(model)


TEXTS = ["ein Satz", "b", "noch ein etwas längerer Satz"]


def both(slot: AdaptedModel) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Logits and gradients of an adapter that changes something, by PEFT and fused."""
    parameters = slot.fresh(3)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in parameters.values():
            value.copy_(torch.randn(value.shape, generator=random) * 0.1)
    found = []
    for fused in (False, True):
        if fused:
            assert fuse_adapter(slot.base.model, slot._name) == sum("lora_A" in name for name in parameters) > 30
        logits = slot.base.logits(slot.base.tokens(TEXTS))
        gradients = torch.autograd.grad((logits * torch.tensor([1.0, -2.0, 0.5])).sum(), list(parameters.values()))
        found.append((logits.detach(), dict(zip(parameters, gradients, strict=True))))
    return found


@pytest.mark.parametrize("shape", ["gemma3", "qwen3", "xlm_roberta"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.03)])
@pytest.mark.parametrize("recompute", [False, True])
def test_logits_and_gradients_are_those_of_peft(
    bases_root: Path, shape: str, dtype: str, tolerance: float, recompute: bool
) -> None:
    chosen = settings(model=f"tiny:{shape}", dtype=dtype)
    slot = AdaptedModel(load_base(chosen, bases_root), chosen)
    if recompute:
        slot.base.model.activation_checkpointing_enable({"use_reentrant": False})
        slot.base.model.train()
    (plain, expected), (fused, found) = both(slot)
    assert float(plain.std()) > 0.02
    torch.testing.assert_close(fused, plain, atol=tolerance, rtol=tolerance)
    for name, value in expected.items():
        gap = float((found[name].float() - value.float()).norm() / value.float().norm())
        assert gap < 10 * tolerance, name


def test_a_gpu_gets_them_and_a_cpu_stays_the_reference(bases_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(tunable, "fuse_adapter", lambda model, name: asked.append(name))
    chosen = settings()
    slot = AdaptedModel(load_base(chosen, bases_root), chosen)
    slot.fresh(1)
    assert not asked
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: torch.no_grad())
    slot.base.device = "cuda"
    slot.fresh(1)
    assert asked == [slot._name]


@pytest.mark.parametrize("changes", [{"four_bit": True}, {"dropout": 0.1}])
def test_what_peft_does_otherwise_is_left_to_it(bases_root: Path, changes: dict[str, object]) -> None:
    chosen = settings(**changes)
    slot = AdaptedModel(load_base(chosen, bases_root), chosen)
    slot.fresh(1)
    assert fuse_adapter(slot.base.model, slot._name) == 0


def test_the_next_adapter_is_computed(slot: AdaptedModel) -> None:
    rows = slot.base.tokens(TEXTS)
    (plain, _), _ = both(slot)
    slot.fresh(4)
    fuse_adapter(slot.base.model, slot._name)
    fresh = slot.base.logits(rows).detach()
    slot.fresh(4)
    assert float((fresh - plain).abs().max()) > 1e-3
    torch.testing.assert_close(slot.base.logits(rows).detach(), fresh, atol=1e-5, rtol=0)
