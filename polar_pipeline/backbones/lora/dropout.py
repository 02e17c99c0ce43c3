"""Dropout that a model brings along, as encoders do: while adapters are trained it follows the setting, so that 0 is none at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from polar_pipeline.settings.backbones import LoraSettings


@contextmanager
def own_dropout(model: Any, settings: LoraSettings) -> Iterator[None]:
    """Give every dropout layer of a frozen `model` the setting's share for a while; a model that is trained whole keeps its own."""
    import torch

    layers = [module for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    before = [layer.p for layer in layers]
    try:
        for layer in layers if settings.tuning == "lora" else []:
            layer.p = settings.dropout
        yield
    finally:
        for layer, share in zip(layers, before, strict=True):
            layer.p = share
