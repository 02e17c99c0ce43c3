"""Memory: what a model needs, what a token needs in training, and what to do when memory runs out.

When memory runs out, the failed attempt is let go of before anything else is tried. Cleaning up in the exception
handler would free nothing: the traceback holds the frames of the failed call, and they hold its tensors.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from polar_pipeline.backbones.base import Progress
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import LoraSettings

Result = TypeVar("Result")

# bytes per weight: NF4 and its doubly quantized scales (Dettmers et al. 2023, section 3)
_FOUR_BIT = 0.5 + 4.127 / 64 / 8
_PROBE = 64  # tokens
# needed memory in shares of the weights: LoRA adds adapters, their optimizer and one recomputed batch (a tenth at 27B);
# full fine-tuning adds gradients and two moments
_NEEDED = {"lora": 1.1, "full": 4.0}


class TooLarge(InputError):
    """A model does not fit into the memory that is free now."""


def weight_bytes(model_class: Any, config: Any, four_bit: bool, dtype: Any) -> int:
    """Bytes of the weights, counted on a model without storage. 4-bit shrinks linear layers alone."""
    import torch

    with torch.device("meta"):
        model = model_class(config)
    linear = {module.weight for module in model.modules() if isinstance(module, torch.nn.Linear)}
    small = sum(weight.numel() for weight in linear)
    rest = sum(weight.numel() for weight in model.parameters()) - small
    return int(rest * dtype.itemsize + small * (_FOUR_BIT if four_bit else dtype.itemsize))


def free_bytes(device: str) -> int:
    """Free memory of the machine, which Apple's GPUs share, or of the GPU; what torch keeps to use again is free."""
    import psutil
    import torch

    if device != "cuda":
        return int(psutil.virtual_memory().available)
    return int(torch.cuda.mem_get_info()[0]) + int(torch.cuda.memory_reserved() - torch.cuda.memory_allocated())


def refuse_too_large(
    model_class: Any, config: Any, settings: LoraSettings, device: str, dtype: Any, at_least: float = 1.0
) -> None:
    """Raises TooLarge if free memory does not hold the weights `at_least` times, and what training needs."""
    weights, free = weight_bytes(model_class, config, settings.four_bit, dtype), free_bytes(device)
    needed = max(_NEEDED[settings.tuning], at_least)
    if weights * needed > free:
        raise TooLarge(
            f"model {settings.model!r} of backbone {settings.name!r} needs {weights / 2**30:.1f} GiB for its weights "
            f"and {weights * (needed - 1) / 2**30:.1f} GiB beside them, and {device} has {free / 2**30:.1f} GiB free: "
            f"{smaller_model_advice(settings)}"
        )


def smaller_model_advice(settings: LoraSettings) -> str:
    """What to change for a model that does not fit."""
    smaller = "" if settings.four_bit or settings.tuning == "full" else "set four_bit to true, "
    return f"{smaller}name a smaller model, or end what else uses the memory."


def activation_bytes(base: Any) -> float:
    """Bytes per token that the backward pass keeps, with the adapter in place.

    Measured on two short rows of different length: weights that are kept for their inputs' gradients cancel.
    """
    import torch

    kept: dict[int, int] = {}

    def count(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    found = []
    for tokens in (_PROBE, 2 * _PROBE):
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            logits = base.logits([np.full(tokens, 3, dtype=np.int64)])
        del logits
        found.append(sum(kept.values()))
        kept.clear()
    return (found[1] - found[0]) / _PROBE


def should_recompute(base: Any, settings: LoraSettings) -> bool:
    """Whether activations are recomputed, at 6N FLOP per token instead of 4N: only if a batch would not fit."""
    if settings.recompute != "auto":
        return settings.recompute == "always"
    return activation_bytes(base) * settings.token_budget > 0.8 * free_bytes(base.device)


def none_if_out_of_memory(work: Callable[[], Result]) -> Result | None:
    """The result of `work`, or None if memory ran out; nothing of the attempt is held any longer then."""
    import torch

    try:
        return work()
    except torch.OutOfMemoryError:
        pass
    free_unused()
    return None


class BatchSplitter:
    """In how many parts each batch is computed: one, and two from the first time that memory runs out."""

    def __init__(self, settings: LoraSettings, progress: Progress) -> None:
        self.parts = 1
        self._settings, self._progress = settings, progress

    def compute(self, title: str, work: Callable[[], Result]) -> Result:
        """The result of `work`, which reads `parts`. Raises InputError if memory does not suffice for halves either."""
        found = none_if_out_of_memory(work)
        if found is None and self.parts == 1:
            self.parts = 2
            self._progress(f"{title}: out of memory, so each batch is computed in two halves from now on")
            found = none_if_out_of_memory(work)
        if found is not None:
            return found
        raise InputError(
            f"backbone {self._settings.name!r} has not enough memory for half of token_budget "
            f"{self._settings.token_budget} either: lower it, set four_bit to true, or recompute to always."
        )


def free_unused() -> None:
    """Give memory that no tensor holds back to the device."""
    import gc

    import torch

    gc.collect()
    torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
