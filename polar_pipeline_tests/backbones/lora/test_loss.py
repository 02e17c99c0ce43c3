"""Losses against torch, torchvision's formula of focal loss, and class weights against scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight
from torch.nn.functional import binary_cross_entropy_with_logits

from polar_pipeline.backbones.lora.loss import row_losses, row_weights
from polar_pipeline_tests.backbones.lora.examples import settings

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
