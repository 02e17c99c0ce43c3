"""Temperature scaling (Guo et al. 2017, section 4.2): one number per backbone and language that calibrates its logits.

It keeps the order of the posts, so it changes no decision of a single backbone. It makes logits of different backbones
comparable before they are averaged, and probabilities readable.
"""

import numpy as np

from polar_pipeline.metrics.scores import Floats, Ints

_LOG_RANGE = (-4.0, 4.0)  # temperatures from 1/55 to 55; beyond it a model is constant or a step, not mis-scaled
_STEPS = 60  # halvings alone would leave 8 * 0.5^60 of the range; Newton's steps need about six
_CLOSE = 1e-10


def sigmoid(logits: Floats) -> Floats:
    """1 / (1 + exp(-x)) without overflow, elementwise in float64."""
    logits = np.asarray(logits, dtype=np.float64)
    exponential = np.exp(-np.abs(logits))
    probabilities: Floats = np.where(logits >= 0, 1.0, exponential) / (1.0 + exponential)
    return probabilities


def fit_temperature(labels: Ints, logits: Floats) -> float:
    """The temperature T > 0 that minimises the log loss of logits / T. `labels` 0/1 and `logits`, both (n,).

    The loss is convex in 1/T, so its slope has one zero: Newton's steps towards it, and a halving of the bracket
    wherever a step would leave it. Constant logits and logits that separate the classes have no finite minimum: the
    end of the range is returned.
    """
    low, high = np.exp(-_LOG_RANGE[1]), np.exp(-_LOG_RANGE[0])
    inverse = 1.0
    for _ in range(_STEPS):
        probabilities = sigmoid(inverse * logits)
        slope = np.dot(probabilities - labels, logits)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        curvature = np.dot(probabilities * (1 - probabilities), logits * logits)
        step = slope / curvature if curvature > 0 else np.inf
        ahead = inverse - step
        ahead = ahead if low < ahead < high else np.sqrt(low * high)
        if abs(ahead - inverse) <= _CLOSE * inverse:
            break
        inverse = ahead
    return float(1 / inverse)
