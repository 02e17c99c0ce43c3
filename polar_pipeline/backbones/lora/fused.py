"""Fewer passes over activations: RMS norms and adapted layers that compute the same in fewer kernels.

Beside short batches these passes cost as much as the matrix products (`benchmarks/lora_traffic.py` counts them).
Parameters, names and files stay those of transformers and PEFT.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def fuse_norms(model: Any) -> int:
    """Compute the RMS norms of a frozen Gemma 3 or Qwen3 `model` in one call each, in float32. Returns their number.

    transformers computes square, mean, root and product one by one, in about nine calls that each read and write all
    activations. Raises ValueError if a norm is trained, because its prepared weights would go stale.
    """
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    count = 0
    for module in model.modules():
        if isinstance(module, Gemma3RMSNorm):
            scale, epsilon = 1 + module.weight.detach().float(), module.eps  # stored as the distance from 1
        elif isinstance(module, Qwen3RMSNorm):
            scale, epsilon = module.weight.detach().float(), module.variance_epsilon
        else:
            continue
        if module.weight.requires_grad:
            raise ValueError("norms that are trained cannot be prepared once")
        module.forward = _FusedNorm(scale, float(epsilon))
        count += 1
    return count


class _FusedNorm:
    """The forward pass of one norm."""

    def __init__(self, scale: "Tensor", epsilon: float) -> None:
        self._scale, self._epsilon = scale, epsilon

    def __call__(self, inputs: "Tensor") -> "Tensor":
        from torch.nn.functional import rms_norm

        return rms_norm(inputs.float(), self._scale.shape, self._scale, self._epsilon).to(inputs.dtype)


def fuse_adapter(model: Any, name: str) -> int:
    """Let the layers of `model` that have the adapter `name` add its product in place. Returns how many do.

    PEFT writes `B(A(x))`, scales it and adds it: three passes over a tensor as wide as the layer. In bfloat16 one
    rounding replaces three. 4-bit layers and layers with dropout are left to PEFT.
    """
    import torch
    from peft.tuners.lora.layer import Linear

    count = 0
    layers: list[Any] = [module for module in model.modules() if isinstance(module, Linear)]
    for layer in layers:
        layer.__dict__.pop("forward", None)  # of the adapter before
        plain = type(layer.base_layer) is torch.nn.Linear
        if plain and name in layer.lora_A and isinstance(layer.lora_dropout[name], torch.nn.Identity):
            layer.forward = _FusedLayer(layer, name)
            count += 1
    return count


class _FusedLayer:
    """The forward pass of one adapted layer."""

    def __init__(self, layer: Any, name: str) -> None:
        self._base, self._scale = layer.base_layer, layer.scaling[name]
        self._a, self._b = layer.lora_A[name], layer.lora_B[name]

    def __call__(self, inputs: "Tensor") -> "Tensor":
        # as a matrix, so that the frozen layer's result is no view: in place on a view costs copies in the backward
        # pass
        rows = inputs.reshape(-1, inputs.shape[-1])
        results = self._base(rows)
        results.addmm_(self._a(rows), self._b.weight.t(), alpha=self._scale)
        return results.view(*inputs.shape[:-1], results.shape[-1])  # type: ignore[no-any-return]
