"""Several adapters and heads in one frozen base: each layer's A (adapters, rank, in) and B (adapters, out, rank) in two batched products.

A batch holds equally many rows of each adapter that is in use, adapter by adapter. All that one adapter trains lies in one piece of
memory, and so do its gradients, so that an optimizer sees one tensor where PEFT has hundreds. What does not belong here: a loss.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

_ROOT, _SAVED = "base_model.model.", "modules_to_save."
_A, _B = "lora_A.weight", "lora_B.weight"

State = dict[str, "Tensor"]  # one adapter, by PEFT's names


class _Place(NamedTuple):
    """Where a parameter lies in what an adapter trains."""

    dtype: Any
    start: int
    shape: tuple[int, ...]


class Stack:
    """Adapters of one kind, `states`, in the plain model of `base`: put in by `enter`, taken out by `leave`."""

    def __init__(self, base: BaseModel, states: list[State], scale: float) -> None:
        self._model, self._scale, self._size = base.model, scale, len(states)
        self._places = _places(states[0])
        self._values = {dtype: _flat(states, self._places, dtype) for dtype in _dtypes(self._places)}
        self._gradients = {dtype: values.new_zeros(values.shape) for dtype, values in self._values.items()}
        self._leaves: dict[range, State] = {}
        self._used, self._now = range(0), State()
        self._before: list[tuple[Any, Any]] = []

    def enter(self) -> None:
        """Let the model's layers compute with the adapters."""
        heads = [name for name in self._places if f".{_SAVED}" in name and name.endswith(".weight")]
        for name in heads:
            self._replace(name, self._headed)
        for name in self._places:
            if name.endswith(_A):
                self._replace(name, self._adapted)
        known = {*heads, *(name.removesuffix("weight") + "bias" for name in heads)}
        strange = [name for name in self._places if name not in known and not name.endswith((_A, _B))]
        if strange:
            self.leave()
            raise InputError(f"{strange[0]} cannot be trained for several languages at once: set together to 1.")

    def leave(self) -> None:
        """Make the model what it was."""
        while self._before:
            layer, forward = self._before.pop()
            del layer.forward
            if forward is not None:
                layer.forward = forward

    def use(self, adapters: range) -> None:
        """The next batches hold rows of these adapters, which lie side by side."""
        if adapters not in self._leaves:
            self._leaves[adapters] = {
                name: self._view(self._values, place, adapters).detach().requires_grad_()
                for name, place in self._places.items()
            }
        self._used, self._now = adapters, self._leaves[adapters]

    def backward(self, loss: "Tensor") -> None:
        """Add the gradients of `loss` to those that are there."""
        import torch

        found = torch.autograd.grad(loss, list(self._now.values()))
        kept = [self._view(self._gradients, place, self._used) for place in self._places.values()]
        torch._foreach_add_(kept, found)

    def zero(self) -> None:
        """Forget the gradients."""
        for gradients in self._gradients.values():
            gradients.zero_()

    def trained(self, adapter: int) -> State:
        """All that one adapter trains, a tensor per dtype, with its gradient."""
        found = {}
        for dtype, values in self._values.items():
            found[str(dtype)] = values[adapter]
            found[str(dtype)].grad = self._gradients[dtype][adapter]
        return found

    def state(self, adapter: int) -> State:
        """One adapter by PEFT's names."""
        return {
            name: self._view(self._values, place, range(adapter, adapter + 1))[0]
            for name, place in self._places.items()
        }

    def _view(self, flat: dict[Any, "Tensor"], place: _Place, adapters: range) -> "Tensor":
        length = math.prod(place.shape)
        piece = flat[place.dtype][adapters.start : adapters.stop, place.start : place.start + length]
        return piece.view(len(adapters), *place.shape)

    def _replace(self, name: str, make: Callable[[str, Any], Any]) -> None:
        path = name.removeprefix(_ROOT).replace(_SAVED, "").removesuffix(".weight").removesuffix(".lora_A")
        layer = self._model.get_submodule(path)
        self._before.append((layer, layer.__dict__.get("forward")))
        layer.forward = make(name, layer.forward)

    def _adapted(self, name: str, plain: Any) -> Any:
        import torch

        other = name.removesuffix(_A) + _B

        def forward(inputs: "Tensor") -> "Tensor":
            outputs, a, b = plain(inputs), self._now[name], self._now[other]
            low = torch.bmm(self._grouped(inputs).to(a.dtype), a.mT)
            both = torch.baddbmm(self._grouped(outputs).to(b.dtype), low, b.mT, alpha=self._scale)
            return both.to(outputs.dtype).view(outputs.shape)

        return forward

    def _headed(self, name: str, _: Any) -> Any:
        import torch

        bias = name.removesuffix("weight") + "bias"

        def forward(inputs: "Tensor") -> "Tensor":
            found = torch.bmm(self._grouped(inputs), self._now[name].mT)
            if bias in self._now:
                found = found + self._now[bias][:, None]
            return found.view(*inputs.shape[:-1], -1)

        return forward

    def _grouped(self, rows: "Tensor") -> "Tensor":
        return rows.reshape(len(self._used), -1, rows.shape[-1])


def _dtypes(places: dict[str, _Place]) -> list[Any]:
    """Dtypes among `places`, in a fixed order."""
    return sorted({place.dtype for place in places.values()}, key=str)


def _places(state: State) -> dict[str, _Place]:
    """Parameters of one dtype one after the other."""
    ends: dict[Any, int] = {}
    places = {}
    for name, value in state.items():
        start = ends.get(value.dtype, 0)
        places[name] = _Place(value.dtype, start, tuple(value.shape))
        ends[value.dtype] = start + value.numel()
    return places


def _flat(states: list[State], places: dict[str, _Place], dtype: Any) -> "Tensor":
    import torch

    names = [name for name, place in places.items() if place.dtype == dtype]
    return torch.stack([torch.cat([state[name].detach().reshape(-1) for name in names]) for state in states])
