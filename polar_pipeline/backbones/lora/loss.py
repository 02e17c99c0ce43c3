"""The loss of one row, and what rows weigh: cross-entropy or focal loss, class weights for skewed languages."""

from typing import TYPE_CHECKING

import numpy as np

from polar_pipeline.metrics.scores import Floats, Ints
from polar_pipeline.settings.backbones import LoraSettings

if TYPE_CHECKING:
    from torch import Tensor


def row_losses(logits: "Tensor", labels: "Tensor", settings: LoraSettings) -> "Tensor":
    """Losses (rows,) of float32 logits (rows,) and labels 0/1 (rows,). Focal: (1 - p)^gamma times cross-entropy (Lin et al. 2017, eq. 4)."""
    from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

    losses = binary_cross_entropy_with_logits(logits, labels, reduction="none")
    if settings.loss == "focal":
        # as a power of 1 - p, its gradient would be NaN where a row is certain and gamma below 1
        losses = losses * (settings.focal_gamma * logsigmoid(logits * (1 - 2 * labels))).exp()
    return losses


def row_weights(labels: Ints, synthetic: "np.typing.NDArray[np.bool_]", settings: LoraSettings) -> Floats:
    """What each row's loss counts, float (rows,): its class's weight (n / 2n_c where balanced) times a synthetic row's."""
    weights = np.ones(len(labels))
    if settings.class_weights == "balanced":
        counts = np.bincount(labels, minlength=2)
        weights = (len(labels) / (2 * np.maximum(counts, 1)))[labels]
    weighed: Floats = np.where(synthetic & (settings.synthetic == "mixed"), settings.synthetic_weight, 1.0) * weights
    return weighed
