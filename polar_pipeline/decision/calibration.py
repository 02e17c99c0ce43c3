"""Temperature scaling (Guo et al. 2017, section 4.2): one number per backbone and language that makes logits honest.

It keeps the order of the posts, so it changes no single backbone's decisions; it makes logits of different backbones
comparable before they are averaged, and probabilities readable.
"""

import numpy as np

from polar_pipeline.metrics.scores import Floats, Ints

_LOG_RANGE = (-4.0, 4.0)  # temperatures from 1/55 to 55; beyond it a model is constant or a step, not mis-scaled
_STEPS = 60  # golden-section steps: the bracket shrinks to 8 * 0.618^60 < 1e-11


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)) without overflow, elementwise in float64."""
    logits = np.asarray(logits, dtype=np.float64)
    exponential = np.exp(-np.abs(logits))
    probabilities: Floats = np.where(logits >= 0, 1.0, exponential) / (1.0 + exponential)
    return probabilities


def log_loss(labels: Ints, logits: Floats) -> float:
    """Mean negative log likelihood of 0/1 labels under sigmoid(logits), in nats."""
    signed = np.where(np.asarray(labels) == 1, -logits, logits)
    return float(np.mean(np.logaddexp(0.0, signed)))


def fit_temperature(labels: Ints, logits: Floats) -> float:
    """The temperature T > 0 that minimises the log loss of logits / T.

    The loss is convex in 1/T and so has one minimum over log T, which a golden-section search finds. Constant logits and
    logits that separate the classes have no finite minimum: the end of the range is returned.
    """
    ratio = (np.sqrt(5.0) - 1.0) / 2.0
    low, high = _LOG_RANGE
    for _ in range(_STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if log_loss(labels, logits / np.exp(left)) <= log_loss(labels, logits / np.exp(right)):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))
