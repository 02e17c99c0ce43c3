"""Calls and bytes that one layer of Gemma 3 12B or 27B costs beside its products, as published and as trained here.

Usage: python benchmarks/lora_traffic.py [--tokens 256]

No GPU is needed: the layer runs in its true width on the CPU, and every call below autograd is counted. A GPU's time is
then computed, not measured: large products at 790 TFLOP/s (one H200), all else at 3.8 TB/s, four fifths of its memory's
rate, and nothing waiting for the host. How much time the host has for a call so that this holds is printed too: eager
PyTorch takes about 5 microseconds.
"""

import argparse
from typing import Any

import numpy as np
import torch
from lora_models import as_published, build, config_of, settings_for, weights_outside_embeddings
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from polar_pipeline.backbones.lora.base_model import fuse_adapter
from polar_pipeline.backbones.lora.tunable import AdaptedModel
from polar_pipeline.pretrained.model_files import silence_libraries

FLOP_RATE, MEMORY_RATE = 790e12, 3.8e12
LARGE = 256  # a product whose inner or outer size is below this waits for memory, not for arithmetic


class Costs(TorchDispatchMode):
    """Counts calls that are no views, FLOP of large products, and bytes of all else."""

    def __init__(self) -> None:
        super().__init__()
        self.found = np.zeros(3)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        held = {tensor.untyped_storage().data_ptr() for tensor in given}
        new = any(tensor.untyped_storage().data_ptr() not in held for tensor in made)
        if new or func._schema.is_mutable:
            self.found += self._cost(func, given, made)
        return result

    def _cost(self, func: Any, given: list[torch.Tensor], made: list[torch.Tensor]) -> tuple[int, int, int]:
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm_.default):
            left, right = given[-2:]
            if min(*left.shape, right.shape[1]) >= LARGE:
                return 1, 2 * left.shape[0] * left.shape[1] * right.shape[1], 0
        return 1, 0, sum(tensor.numel() * tensor.element_size() for tensor in given + made)


class OneCall(torch.autograd.Function):
    """Costs what a fused norm does on a GPU, a call each way; on a CPU torch spells it out. Its values mean nothing."""

    @staticmethod
    def forward(context: Any, inputs: torch.Tensor) -> torch.Tensor:
        context.save_for_backward(inputs)
        return inputs.clone()

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] + context.saved_tensors[0]


def step(shape: str, layers: int, ours: bool, tokens: int) -> np.ndarray:
    """Calls, FLOP and bytes of a forward and backward pass of rows of 64 tokens."""
    settings = settings_for("cpu")
    base = build(config_of(shape, num_hidden_layers=layers, vocab_size=1024), "cpu")
    if not ours:
        as_published(base)
    slot = AdaptedModel(base, settings)
    slot.fresh(0)
    if ours:
        fuse_adapter(base.model, slot._name)
    rows = [np.full(64, 5, dtype=np.int64)] * (tokens // 64)
    with Costs() as costs:
        base.logits(rows).sum().backward()
    return costs.found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--shape", action="append", choices=["tiny", "12b", "27b"])
    arguments = parser.parse_args()
    silence_libraries()
    torch.nn.functional.rms_norm = lambda inputs, *_: OneCall.apply(inputs)
    for shape in arguments.shape or ["12b", "27b"]:
        depth, weights = config_of(shape).num_hidden_layers, weights_outside_embeddings(shape)
        for name, ours in (("as published", False), ("ours", True)):
            one, two = (step(shape, layers, ours, arguments.tokens) for layers in (1, 2))
            calls, flop, moved = two - one  # the first layer has no gradient to pass on
            flop, moved = depth * flop / arguments.tokens, depth * moved / arguments.tokens
            seconds = flop / FLOP_RATE + moved / MEMORY_RATE
            share = 4 * weights / FLOP_RATE / seconds
            each = 2048 * seconds / depth / calls * 1e6
            print(
                f"{shape} {name}: {calls:.0f} calls a layer, {flop / 4 / weights:.2f} times 4N FLOP, "
                f"{moved / 1e6:.1f} MB a token; computed on an H200: {1 / seconds:,.0f} tokens/s, "
                f"{share:.0%} of the floor, where a call of 2,048 tokens takes the host {each:.1f} us at most",
                flush=True,
            )


if __name__ == "__main__":
    main()
