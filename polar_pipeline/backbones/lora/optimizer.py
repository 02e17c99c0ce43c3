"""The loss of a row and the optimizer: AdamW over float32 copies, gradient clipping, a learning-rate schedule.

Sums are kept in float32, because small updates round to nothing in bfloat16. Steps that are not finite are skipped.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats, Ints
from polar_pipeline.settings.backbones import LoraSettings

if TYPE_CHECKING:
    from torch import Tensor

    from polar_pipeline.backbones.lora.base_model import BaseModel

_FUSED = ("cpu", "cuda")  # where AdamW has one kernel, which can skip a step by itself
_MOST_SKIPPED = 5  # consecutive steps that are not finite until training is given up


def row_losses(logits: "Tensor", labels: "Tensor", settings: LoraSettings) -> "Tensor":
    """Losses (rows,) of float32 logits and labels 0/1, both (rows,). Focal loss: Lin et al. 2017, eq. 4."""
    from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

    losses = binary_cross_entropy_with_logits(logits, labels, reduction="none")
    if settings.loss == "focal":
        # as a power of 1 - p, its gradient would be NaN where a row is certain and gamma below 1
        losses = losses * (settings.focal_gamma * logsigmoid(logits * (1 - 2 * labels))).exp()
    return losses


def finer_losses(logits: "Tensor", labels: "Tensor") -> "Tensor":
    """Mean cross-entropies (rows,) over those finer labels that a row has, 0 where it has none.

    Takes float32 logits and labels 0/1, both (rows, labels); NaN is a label that a row does not have.
    """
    from torch.nn.functional import binary_cross_entropy_with_logits

    known = ~labels.isnan()
    losses = binary_cross_entropy_with_logits(logits, labels.nan_to_num(), reduction="none")
    return (losses * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)


def start_at_base_rates(base: "BaseModel", parameters: "Mapping[str, Tensor]", finer: Floats | None) -> None:
    """Let each finer label begin with the log-odds of its share in `finer` (rows, labels), where the head has a bias.

    Most are rare. From 0, weights would first learn that, along what all posts share, and rank posts by it (the prior
    of Lin et al. 2017, section 4.1).
    """
    import torch

    if finer is None:
        return
    known = ~np.isnan(finer)
    odds = (np.nansum(finer, axis=0) + 1) / (known.sum(axis=0) - np.nansum(finer, axis=0) + 1)
    for name, parameter in parameters.items():
        if name.endswith(".bias") and f"{base.head}." in name and len(parameter) == base.outputs:
            with torch.no_grad():
                parameter[1:] = torch.from_numpy(np.log(odds)).to(parameter)


def row_weights(labels: Ints, synthetic: "np.typing.NDArray[np.bool_]", settings: LoraSettings) -> Floats:
    """The weight of each row's loss, float (rows,): its class's (n / 2n_c if balanced) times a synthetic row's."""
    weights = np.ones(len(labels))
    if settings.class_weights == "balanced":
        counts = np.bincount(labels, minlength=2)
        weights = (len(labels) / (2 * np.maximum(counts, 1)))[labels]
    weighed: Floats = np.where(synthetic & (settings.synthetic == "mixed"), settings.synthetic_weight, 1.0) * weights
    return weighed


def learning_rate_share(number: int, total: int, settings: LoraSettings) -> float:
    """The share of the learning rate at step `number` of `total`: rising over the warm-up, then by the schedule."""
    rising = math.ceil(settings.warm_up * total)
    if number < rising:
        return (number + 1) / (rising + 1)
    done = (number - rising) / max(total - rising, 1)
    if settings.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0 if settings.schedule == "constant" else 1 - done


class Optimizer:
    """The optimizer of one training. Only `check`, `state` and `restore` wait for a GPU, but each step for Apple's."""

    def __init__(self, parameters: dict[str, Any], settings: LoraSettings, total: int) -> None:
        import torch

        self._names, self._live = list(parameters), list(parameters.values())
        self._master = [
            live if live.dtype == torch.float32 else live.detach().float().requires_grad_() for live in self._live
        ]
        both = zip(self._live, self._master, strict=True)
        self._copies = [(live, master) for live, master in both if live is not master]
        self._fused = self._live[0].device.type in _FUSED
        self._adam: Any = torch.optim.AdamW(
            self._master, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=self._fused
        )
        self._settings, self._total = settings, total
        # consecutive skipped steps, and the most so far; they stay on the device until `check` reads them
        self._skipped, self._most = torch.zeros(2, device=self._live[0].device).unbind()

    def zero(self) -> None:
        """Forget the gradients."""
        for live in self._live:
            live.grad = None

    def step(self, number: int) -> "Tensor":
        """Make step `number` (from 0). Returns the norm of the gradients; if it is not finite, nothing changes."""
        import torch

        self._widen()
        norm = torch.nn.utils.clip_grad_norm_(self._master, self._settings.clip)
        skip = (~norm.isfinite()).float()
        self._skipped = (self._skipped + 1) * skip
        self._most = torch.maximum(self._most, self._skipped)
        self._adam.param_groups[0]["lr"] = self._settings.learning_rate * learning_rate_share(
            number, self._total, self._settings
        )
        if self._fused:
            self._adam.grad_scale, self._adam.found_inf = None, skip  # makes AdamW skip the step
        if self._fused or not skip:
            self._adam.step()
        if self._copies:
            with torch.no_grad():
                torch._foreach_copy_([live for live, _ in self._copies], [master for _, master in self._copies])
        return norm

    def check(self) -> None:
        """Raises InputError when five steps in a row had gradients that are not finite. It waits for the GPU."""
        if float(self._most) >= _MOST_SKIPPED:
            raise InputError(
                f"backbone {self._settings.name!r}: {_MOST_SKIPPED} steps in a row had gradients that are not finite: "
                f"lower learning_rate, or set dtype to float32."
            )

    def _widen(self) -> None:
        """The gradients in float32, where what is trained is not."""
        import torch

        found = [(live.grad, master) for live, master in self._copies if live.grad is not None]
        for live, master in self._copies:
            if live.grad is None:
                master.grad = None
            elif master.grad is None:
                master.grad = torch.empty_like(master)
        if found:
            torch._foreach_copy_([master.grad for _, master in found], [grad for grad, _ in found])

    def state(self) -> "dict[str, Tensor]":
        """Masters and moments, by name."""
        found = {f"master.{name}": master for name, master in zip(self._names, self._master, strict=True)}
        for name, master in zip(self._names, self._master, strict=True):
            found |= {f"adam.{key}.{name}": value for key, value in self._adam.state.get(master, {}).items()}
        return found

    def restore(self, state: "dict[str, Tensor]") -> None:
        """Go on from `state`, bit for bit."""
        import torch

        with torch.no_grad():
            for name, live, master in zip(self._names, self._live, self._master, strict=True):
                master.copy_(state[f"master.{name}"])
                live.copy_(master)
                for key in ("step", "exp_avg", "exp_avg_sq"):
                    if f"adam.{key}.{name}" in state:
                        self._adam.state[master][key] = state[f"adam.{key}.{name}"].to(master.device)
