"""The layers of an adapter in three products where PEFT has three products and three passes over their results.

PEFT adds `B(A(x)) * scale` to what the frozen layer gives: the product is written, scaled and added, each a pass over a tensor as wide
as the layer. Here the second product adds to the frozen layer's result in place. Parameters, names and files are PEFT's; in bfloat16
one rounding takes the place of three. What does not belong here: 4-bit layers and dropout, which PEFT computes as ever.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def fuse_adapter(model: Any, name: str) -> int:
    """Let the layers of `model` with the adapter `name` compute so, where they can. Returns how many do."""
    import torch
    from peft.tuners.lora.layer import Linear

    count = 0
    layers: list[Any] = [module for module in model.modules() if isinstance(module, Linear)]
    for layer in layers:
        layer.__dict__.pop("forward", None)  # of an adapter that was here before
        plain = type(layer.base_layer) is torch.nn.Linear
        if plain and name in layer.lora_A and isinstance(layer.lora_dropout[name], torch.nn.Identity):
            layer.forward = _Fused(layer, name)
            count += 1
    return count


class _Fused:
    """The forward pass of one layer."""

    def __init__(self, layer: Any, name: str) -> None:
        self._base, self._scale = layer.base_layer, layer.scaling[name]
        self._a, self._b = layer.lora_A[name], layer.lora_B[name]

    def __call__(self, inputs: "Tensor") -> "Tensor":
        # as a matrix, so that the frozen layer's result is no view: in place on a view costs copies in the backward pass
        rows = inputs.reshape(-1, inputs.shape[-1])
        results = self._base(rows)
        low = self._a(rows)
        results.addmm_(low, self._b.weight.t(), alpha=self._scale)
        return results.view(*inputs.shape[:-1], results.shape[-1])  # type: ignore[no-any-return]
