"""The classification head at the start of a training: small random weights from the seed, the same for all languages."""

from typing import Any

_SPREAD = 0.02  # the initializer_range of the models that are used


def draw_head(parameters: dict[str, Any], seed: int) -> None:
    """Fill a head from `seed` alone, in float32: in bfloat16 its small updates would round to nothing."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters.values():
        drawn = torch.zeros(parameter.shape, dtype=torch.float32)
        if parameter.ndim > 1:
            drawn.normal_(std=_SPREAD, generator=generator)
        parameter.data = drawn.to(parameter.device)
