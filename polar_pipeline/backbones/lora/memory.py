"""Memory: what a model needs, computed before it is loaded; and what a token needs in training, measured on the model itself."""

from typing import Any

import numpy as np

from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import LoraSettings

_FOUR_BIT = (
    0.5 + 4.127 / 64 / 8
)  # bytes a weight: NF4, and its doubly quantized scales (Dettmers et al. 2023, section 3)
_PROBE = 64  # tokens
# beside the weights, in shares of them: adapters, their optimizer and one batch that is recomputed (a tenth at 27B); and in full
# fine-tuning gradients and two moments
_ROOM = {"lora": 1.1, "full": 4.0}


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
    """Memory that is free on the GPU, what torch holds for its next tensors counted in, or in the machine."""
    import psutil
    import torch

    if device != "cuda":
        return int(psutil.virtual_memory().available)
    return int(torch.cuda.mem_get_info()[0]) + int(torch.cuda.memory_reserved() - torch.cuda.memory_allocated())


def refuse_too_large(
    model_class: Any, config: Any, settings: LoraSettings, device: str, dtype: Any, beside: float = 1.0
) -> None:
    """Raises TooLarge when free memory does not hold the weights and what training them needs at least; `beside` other bases, more."""
    needed, free = weight_bytes(model_class, config, settings.four_bit, dtype), free_bytes(device)
    room = max(_ROOM[settings.tuning], beside)
    if needed * room > free:
        raise TooLarge(
            f"model {settings.model!r} of backbone {settings.name!r} needs {needed / 2**30:.1f} GiB for its weights and "
            f"{needed * (room - 1) / 2**30:.1f} GiB beside them, and {device} has {free / 2**30:.1f} GiB free: {remedy(settings)}"
        )


def remedy(settings: LoraSettings) -> str:
    """What to change for a model that does not fit."""
    smaller = "" if settings.four_bit or settings.tuning == "full" else "set four_bit to true, "
    return f"{smaller}name a smaller model, or end what else uses the memory."


def activation_bytes(base: Any) -> float:
    """Bytes a token that the backward pass keeps, counted on two short rows with the adapter in place.

    Between a row and one of twice its length, what does not grow with it cancels: weights that are kept for their inputs' gradients.
    """
    return (_kept_bytes(base, 2 * _PROBE) - _kept_bytes(base, _PROBE)) / _PROBE


def _kept_bytes(base: Any, tokens: int) -> int:
    import torch

    kept: dict[int, int] = {}

    def count(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        logits = base.logits([np.full(tokens, 3, dtype=np.int64)])
    del logits
    return sum(kept.values())


def should_recompute(base: Any, settings: LoraSettings) -> bool:
    """Whether layers are computed again in the backward pass: only where the activations of a batch would not fit.

    Recomputing costs half as much again, 6N FLOP a token in place of 4N.
    """
    if settings.recompute != "auto":
        return settings.recompute == "always"
    return activation_bytes(base) * settings.token_budget > 0.8 * free_bytes(base.device)
