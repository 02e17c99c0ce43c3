"""Fused norms are the norms of transformers, names and all, and are left out where they are trained."""

from pathlib import Path

import pytest
import torch

from polar_pipeline.backbones.lora.loading import load_base
from polar_pipeline.backbones.lora.norms import fuse_norms
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
