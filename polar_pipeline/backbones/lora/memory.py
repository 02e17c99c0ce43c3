"""Memory: what a model needs, computed before it is loaded; and what a token needs in training, measured on the model itself."""

from typing import Any

import numpy as np

from polar_pipeline.errors import InputError
from polar_pipeline.task.backbones import LoraSettings

_FOUR_BIT = (
    0.5 + 4.127 / 64 / 8
)  # bytes a weight: NF4, and its doubly quantized scales (Dettmers et al. 2023, section 3)
_PROBE = 64  # tokens


def weight_bytes(model_class: Any, config: Any, four_bit: bool, dtype: Any) -> int:
    """Bytes of the frozen weights, from a model without storage. In 4-bit the linear layers shrink; embeddings and norms do not."""
    import torch

    with torch.device("meta"):
        model = model_class(config)
    linear = {module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)}
    small = sum(weight.numel() for weight in linear)
    rest = sum(weight.numel() for weight in model.parameters()) - small
    return int(rest * dtype.itemsize + small * (_FOUR_BIT if four_bit else dtype.itemsize))


class TooLarge(InputError):
    """A model does not fit into what memory is free now."""


def free_bytes(device: str) -> int:
    """Memory that is free on the GPU, or in the machine."""
    import psutil
    import torch

    return int(torch.cuda.mem_get_info()[0]) if device == "cuda" else int(psutil.virtual_memory().available)


def refuse_too_large(
    model_class: Any, config: Any, settings: LoraSettings, device: str, dtype: Any, room: float = 1.0
) -> None:
    """Raises TooLarge when the weights do not fit into free memory `room` times; 1 leaves nothing for activations."""
    needed, free = weight_bytes(model_class, config, settings.four_bit, dtype), free_bytes(device)
    if needed * room > free:
        remedy = "" if settings.four_bit else "set four_bit to true, "
        raise TooLarge(
            f"model {settings.model!r} of backbone {settings.name!r} needs {needed / 2**30:.1f} GiB for its weights and {device} has "
            f"{free / 2**30:.1f} GiB free: {remedy}name a smaller model, or end what else uses the memory."
        )


def activation_bytes(base: Any) -> float:
    """Bytes a token that the backward pass keeps, counted on one short row with the adapter in place."""
    import torch

    kept: dict[int, int] = {}

    def count(tensor: Any) -> Any:
        if not isinstance(tensor, torch.nn.Parameter) and not tensor.is_leaf:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        logits = base.logits([np.full(_PROBE, 3, dtype=np.int64)])
    total = sum(kept.values())
    del logits
    return total / _PROBE


def should_recompute(base: Any, settings: LoraSettings) -> bool:
    """Whether layers are computed again in the backward pass: only where the activations of a batch would not fit.

    Recomputing costs half as much again, 6N FLOP a token in place of 4N.
    """
    if settings.recompute != "auto":
        return settings.recompute == "always"
    return activation_bytes(base) * settings.token_budget > 0.8 * free_bytes(base.device)
