"""The part of `lora_speed.py` on memory: what training the 27B in 4-bit takes of a card with 24 GB."""

import numpy as np
import torch
from lora_models import build, config_of, model_class, settings_for

from polar_pipeline.backbones.lora.memory import activation_bytes, weight_bytes
from polar_pipeline.backbones.lora.tunable import AdaptedModel

MEMORY = 24e9


def four_bit_memory(device: str) -> None:
    """27B in 4-bit: weights and adapters counted, activations measured on one and two layers of true width."""
    settings = settings_for(device, token_budget=1024)
    config = config_of("27b")
    weights = weight_bytes(model_class(), config, True, torch.bfloat16)
    found = []
    for layers in (1, 2):
        cut = AdaptedModel(build(config_of("27b", num_hidden_layers=layers, vocab_size=1024), device), settings)
        parameters = cut.fresh(0).values()
        # beside 16-bit weights and gradients, both in float32 and two moments; of float32 weights no copy
        trained = sum(value.numel() * (20 if value.element_size() == 2 else 16) for value in parameters)
        found.append((activation_bytes(cut.base), trained))
        del cut
    layer, adapter = np.array(found[1]) - np.array(found[0])
    depth = config.num_hidden_layers
    adapters = depth * adapter
    copy = 2 * config.hidden_size * config.intermediate_size  # the largest layer, unpacked
    kept, inputs = depth * layer, depth * 2 * config.hidden_size + layer
    print(
        f"27b in 4-bit: weights {weights / 1e9:.1f} GB, adapters {adapters / 1e9:.1f} GB, "
        f"activations {kept / 1e6:.1f} MB a token, {inputs / 1e6:.2f} MB recomputing"
    )
    for name, each in (("keeping them", kept), ("recomputing", inputs)):
        room = MEMORY - weights - adapters - copy
        need = weights + adapters + copy + each * settings.token_budget
        print(
            f"  {name}: {need / 1e9:.1f} GB at {settings.token_budget} tokens a batch; "
            f"24 GB hold {room / each:,.0f} tokens"
        )
