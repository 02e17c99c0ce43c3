"""Losses against published formulas, schedules, small updates in bfloat16, and steps that are not finite."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight
from torch.nn.functional import binary_cross_entropy_with_logits

from polar_pipeline.backbones.lora.optimizer import Optimizer, learning_rate_share, row_losses, row_weights
from polar_pipeline.errors import InputError
from polar_pipeline_tests.backbones.lora.examples import Reads, settings

LOGITS = torch.tensor([-30.0, -2.0, 0.0, 0.5, 30.0, 3.0])
LABELS = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])


def test_cross_entropy_is_that_of_torch() -> None:
    expected = binary_cross_entropy_with_logits(LOGITS, LABELS, reduction="none")
    torch.testing.assert_close(row_losses(LOGITS, LABELS, settings()), expected, rtol=0, atol=0)


def test_focal_without_gamma_is_cross_entropy() -> None:
    focal = row_losses(LOGITS, LABELS, settings(loss="focal", focal_gamma=0))
    torch.testing.assert_close(focal, row_losses(LOGITS, LABELS, settings()))


@pytest.mark.parametrize("gamma", [0.5, 2.0, 5.0])
def test_focal_is_the_formula(gamma: float) -> None:
    logits, labels = LOGITS.double().numpy(), LABELS.numpy()
    chance = 1 / (1 + np.exp(-np.where(labels == 1, logits, -logits)))
    expected = -((1 - chance) ** gamma) * np.log(chance)
    found = row_losses(LOGITS.double(), LABELS.double(), settings(loss="focal", focal_gamma=gamma))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal"])
@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_gradients_stay_finite_where_a_row_is_certain(loss: str, gamma: float) -> None:
    logits = torch.tensor([200.0, -200.0, 200.0, -200.0], requires_grad=True)
    labels = torch.tensor([1.0, 0.0, 0.0, 1.0])
    row_losses(logits, labels, settings(loss=loss, focal_gamma=gamma)).sum().backward()
    assert torch.isfinite(logits.grad).all()


@given(st.lists(st.integers(0, 1), min_size=2).filter(lambda labels: len(set(labels)) == 2))
def test_balanced_weights_are_those_of_scikit_learn(labels: list[int]) -> None:
    found = row_weights(np.array(labels), np.zeros(len(labels), dtype=bool), settings(class_weights="balanced"))
    np.testing.assert_allclose(found, compute_sample_weight("balanced", labels))


def test_one_class_is_weighed_and_not_divided_by_zero() -> None:
    one = np.ones(4, dtype=int)
    np.testing.assert_array_equal(row_weights(one, one == 0, settings(class_weights="balanced")), np.full(4, 0.5))


def test_synthetic_rows_count_less_where_they_are_mixed_in() -> None:
    labels, synthetic = np.array([0, 1, 1]), np.array([False, True, False])
    assert row_weights(labels, synthetic, settings(synthetic_weight=0.25)).tolist() == [1, 0.25, 1]
    warm = settings(synthetic="warm_up", synthetic_weight=0.25)
    assert row_weights(labels, synthetic, warm).tolist() == [1, 1, 1]
    both = row_weights(labels, synthetic, settings(synthetic_weight=0.5, class_weights="balanced"))
    np.testing.assert_allclose(both, [1.5, 0.375, 0.75])


def moved(live: torch.Tensor, gradients: list[torch.Tensor], **changes: object) -> Optimizer:
    optimizer = Optimizer({"weight": live}, settings(**changes), len(gradients))
    for number, gradient in enumerate(gradients):
        optimizer.zero()
        live.grad = gradient.clone()
        optimizer.step(number)
        optimizer.check()
    return optimizer


@pytest.mark.parametrize(
    ("schedule", "last"), [("linear", 0.1), ("constant", 1.0), ("cosine", 0.5 * (1 + math.cos(0.9 * math.pi)))]
)
def test_a_rate_rises_and_then_follows_its_schedule(schedule: str, last: float) -> None:
    chosen = settings(schedule=schedule, warm_up=0.2)
    rates = [learning_rate_share(number, 12, chosen) for number in range(12)]
    # 3 steps of 12 are the first fifth or more; the fourth has the whole rate
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    falling = rates[3:]
    assert all(earlier >= later for earlier, later in itertools.pairwise(falling))
    assert all(0 < value <= 1 for value in rates)
    long = settings(schedule=schedule, warm_up=0.0)
    assert learning_rate_share(0, 10, long) == 1 and learning_rate_share(9, 10, long) == pytest.approx(last)


def test_halfway_and_one_step() -> None:
    assert learning_rate_share(5, 10, settings(schedule="linear", warm_up=0)) == pytest.approx(0.5)
    assert learning_rate_share(5, 10, settings(schedule="cosine", warm_up=0)) == pytest.approx(0.5)
    for schedule in ("linear", "cosine", "constant"):
        assert 0 < learning_rate_share(0, 1, settings(schedule=schedule)) <= 1


@pytest.mark.parametrize("fused", [("cpu",), ()])
def test_float32_is_the_adamw_of_torch(monkeypatch: pytest.MonkeyPatch, fused: tuple[str, ...]) -> None:
    monkeypatch.setattr("polar_pipeline.backbones.lora.optimizer._FUSED", fused)
    gradients = [torch.randn(4, 3, generator=torch.Generator().manual_seed(step)) for step in range(6)]
    ours = torch.nn.Parameter(torch.ones(4, 3))
    moved(ours, gradients, weight_decay=0.1, schedule="linear", warm_up=0, learning_rate=0.01, clip=1e9)
    peer = torch.nn.Parameter(torch.ones(4, 3))
    adam = torch.optim.AdamW([peer], lr=0.01, weight_decay=0.1)
    falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1 - step / 6)
    for gradient in gradients:
        peer.grad = gradient.clone()
        adam.step()
        falling.step()
    torch.testing.assert_close(ours, peer)


def test_small_updates_of_bfloat16_weights_add_up() -> None:
    """Each step moves a weight of 1 by 1e-4, far below what bfloat16 can say; a hundred of them move it by 1e-2."""
    gradients = [torch.ones(8, dtype=torch.bfloat16)] * 100
    plain = torch.nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    adam = torch.optim.AdamW([plain], lr=1e-4, weight_decay=0)
    for gradient in gradients:
        plain.grad = gradient.clone()
        adam.step()
    assert (plain == 1).all()  # the trap is real
    live = torch.nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
    moved(live, gradients, learning_rate=1e-4, schedule="constant", warm_up=0)
    assert live.dtype == torch.bfloat16
    torch.testing.assert_close(live.detach().float(), torch.full((8,), 0.99), atol=0.004, rtol=0)
    assert (live < 1).all()


@pytest.mark.parametrize("fused", [("cpu",), ()])
def test_a_step_that_is_not_finite_changes_nothing(monkeypatch: pytest.MonkeyPatch, fused: tuple[str, ...]) -> None:
    monkeypatch.setattr("polar_pipeline.backbones.lora.optimizer._FUSED", fused)
    good, bad = torch.ones(3), torch.tensor([1.0, math.nan, 1.0])
    for broken in (bad, torch.tensor([math.inf, 0.0, 0.0])):
        live = torch.nn.Parameter(torch.ones(3))
        optimizer = moved(live, [good, good])
        before = {name: value.clone() for name, value in optimizer.state().items()}
        optimizer.zero()
        live.grad = broken.clone()
        assert not torch.isfinite(optimizer.step(1))
        after = optimizer.state()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_five_in_a_row_end_the_training_and_four_do_not() -> None:
    good, bad = torch.ones(3), torch.full((3,), math.nan)
    live = torch.nn.Parameter(torch.ones(3))
    moved(live, [*[bad] * 4, good, *[bad] * 4, good])
    assert torch.isfinite(live).all() and (live < 1).all()
    with pytest.raises(InputError, match=r"backbone 'tiny': 5 steps in a row.*lower learning_rate"):
        moved(torch.nn.Parameter(torch.ones(3)), [bad] * 5)


def test_five_in_a_row_are_seen_later_too() -> None:
    """Nobody looks after each step, because looking waits for the GPU; a good step in between must not hide them."""
    good, bad = torch.ones(3), torch.full((3,), math.nan)
    live = torch.nn.Parameter(torch.ones(3))
    optimizer = Optimizer({"weight": live}, settings(), 9)
    for number, gradient in enumerate([good, *[bad] * 5, good]):
        optimizer.zero()
        live.grad = gradient.clone()
        optimizer.step(number)
    assert torch.isfinite(live).all()
    with pytest.raises(InputError, match="5 steps in a row"):
        optimizer.check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_bad_step_is_as_if_it_had_not_been(dtype: torch.dtype) -> None:
    """Weights, moments and Adam's number of steps, with weight decay, which would move weights by itself."""
    good, bad = torch.full((3,), 0.5, dtype=dtype), torch.full((3,), math.inf, dtype=dtype)
    lives = [torch.nn.Parameter(torch.ones(3, dtype=dtype)) for _ in range(2)]
    chosen = {"weight_decay": 0.1, "schedule": "constant", "warm_up": 0}
    states = [
        moved(live, gradients, **chosen).state()
        for live, gradients in zip(lives, ([good, bad, good], [good, good]), strict=True)
    ]
    assert torch.equal(*lives)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_step_reads_nothing_back() -> None:
    live = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = Optimizer({"weight": live}, settings(), 3)
    live.grad = torch.ones(3, dtype=torch.bfloat16)
    with Reads() as reads:
        optimizer.step(0)
    assert reads.count == 0
    with reads:
        optimizer.check()
    assert reads.count == 1


def test_gradients_are_clipped_together() -> None:
    """Adam forgets the scale of a gradient, but its moments show what came in."""
    first, second = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    optimizer = Optimizer({"first": first, "second": second}, settings(clip=0.5), 1)
    first.grad, second.grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert float(optimizer.step(0)) == pytest.approx(5)
    state = optimizer.state()
    assert float(state["adam.exp_avg.first"]) == pytest.approx(0.1 * 0.3, rel=1e-4)
    assert float(state["adam.exp_avg.second"]) == pytest.approx(0.1 * 0.4, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_was_saved_goes_on_bit_for_bit(dtype: torch.dtype) -> None:
    gradients = [torch.randn(5, generator=torch.Generator().manual_seed(step)).to(dtype) for step in range(6)]
    whole = torch.nn.Parameter(torch.ones(5, dtype=dtype))
    moved(whole, gradients)
    half = torch.nn.Parameter(torch.ones(5, dtype=dtype))
    first = Optimizer({"weight": half}, settings(), 6)
    for number in range(3):
        first.zero()
        half.grad = gradients[number].clone()
        first.step(number)
    saved = {name: value.detach().clone() for name, value in first.state().items()}
    other = torch.nn.Parameter(torch.zeros(5, dtype=dtype))
    second = Optimizer({"weight": other}, settings(), 6)
    second.restore(saved)
    for number in range(3, 6):
        second.zero()
        other.grad = gradients[number].clone()
        second.step(number)
    assert torch.equal(whole, other)
