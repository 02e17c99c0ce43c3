"""How settings name a pretrained model, and how an encoder turns texts into vectors."""

from typing import Literal, NamedTuple

TINY = "tiny:"  # a model that is built in place, such as tiny:gemma3

Pooling = Literal["auto", "mean", "cls", "last_token", "max"]
Precision = Literal["auto", "float32", "bfloat16", "int8"]


class ModelSource(NamedTuple):
    """A pretrained model as a setting names it."""

    model: str  # its folder, its name on the hub, or tiny: and a type
    revision: str  # a branch, tag or commit of the hub
    used_by: str  # the setting, as messages name it, such as "backbone 'gemma'"

    @property
    def tiny(self) -> bool:
        """Whether it has random weights, which only shows the path."""
        return self.model.startswith(TINY)


class Encoding(NamedTuple):
    """How an encoder turns texts into vectors."""

    source: ModelSource
    prompt: str | None = None  # before every text; None is the one that the model's folder says
    pooling: Pooling = "auto"  # auto is the one that the model's folder says, else mean
    layers: tuple[int, ...] = ()  # whose tokens are pooled too, before what the model's folder makes of the last one
    max_length: int | None = None  # tokens of a text; None is the model's own limit
    precision: Precision = "auto"
    device: str = "auto"
    threads: int = 1
