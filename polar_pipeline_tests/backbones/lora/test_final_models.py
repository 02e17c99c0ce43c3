"""Rounding is the same adapter, another seed is not, in bfloat16 too and whatever the spread of the logits."""

from pathlib import Path

import numpy as np
import pytest

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.base_model import score_tokens
from polar_pipeline.backbones.lora.final_models import same_logits
from polar_pipeline.backbones.lora.loading import load_base
from polar_pipeline.backbones.lora.training import train_model
from polar_pipeline.backbones.lora.tunable import AdaptedModel
from polar_pipeline_tests.backbones.lora.examples import fit, settings

HALF, FULL = "torch.bfloat16", "torch.float32"


@pytest.mark.parametrize("changes", [{"learning_rate": 5e-3, "epochs": 6}, {"learning_rate": 2e-4, "epochs": 3}])
def test_another_shape_of_batch_is_the_same_and_another_seed_is_not(
    bases_root: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    """The first separates the labels so well that two seeds' logits differ by a twentieth of their spread."""
    chosen = settings(dtype="bfloat16", max_length=64, token_budget=512, **changes)
    slot = AdaptedModel(load_base(chosen, bases_root), chosen)
    task = fit(slot.base, rows=200, watched=0)
    found = {}
    for seed in (7, 8):
        train_model(slot, task._replace(random_seed=seed), chosen, tmp_path / str(seed), Progress())
        found |= {(seed, budget): score_tokens(slot.base, task.rows.tokens, budget) for budget in (16, 4096)}
    assert np.abs(found[7, 16] - found[7, 4096]).max() > 0
    assert same_logits(found[7, 16], found[7, 4096], HALF)
    assert not same_logits(found[8, 4096], found[7, 4096], HALF)
    assert not same_logits(found[8, 16], found[7, 4096], HALF)


def test_the_tolerance_follows_the_spread() -> None:
    random = np.random.default_rng(0)
    then = random.normal(0, 6, 400)
    noisy = then + random.normal(0, 0.05, 400)
    assert np.abs(noisy - then).max() > 0.1  # more than any fixed tolerance of a small model would allow
    assert same_logits(noisy, then, HALF)
    assert not same_logits(noisy / 30, then / 30 + 0.1, HALF)


def test_a_shift_a_scale_a_sign_and_another_order_are_seen() -> None:
    then = np.random.default_rng(0).normal(0, 2, 400)
    for other in (then + 0.5, then * 1.2, -then, then[::-1], np.zeros(400)):
        assert not same_logits(other, then, HALF)
    twin = np.concatenate([np.full(200, -4.0), np.full(200, 4.0)]) + np.random.default_rng(1).normal(0, 0.1, 400)
    shuffled = np.concatenate([twin[:200][::-1], twin[200:][::-1]])
    assert np.sqrt(np.mean((shuffled - twin) ** 2)) < 0.1 * twin.std()
    assert not same_logits(shuffled, twin, HALF)


def test_a_collapsed_model_is_the_same_and_left_to_its_own_gate() -> None:
    then = np.full(400, 0.3) + np.random.default_rng(0).normal(0, 1e-4, 400)
    assert same_logits(then + np.random.default_rng(1).normal(0, 2e-3, 400), then, HALF)
    assert not same_logits(then + 0.2, then, HALF)


def test_float32_is_exact_and_what_is_no_number_never_agrees() -> None:
    then = np.random.default_rng(0).normal(0, 2, 60)
    assert same_logits(then + 5e-5, then, FULL) and not same_logits(then + 2e-4, then, FULL)
    for dtype in (HALF, FULL):
        assert not same_logits(np.where(np.arange(60) == 3, np.nan, then), then, dtype)


def test_a_few_posts_have_no_order() -> None:
    then = np.array([0.5, 0.501, -1.0, -1.001])
    assert same_logits(np.array([0.501, 0.5, -1.001, -1.0]), then, HALF)
