"""Which rows need no attention mask in a causal model, so that attention takes its fast path and nothing is read back from the GPU.

Given no mask, transformers finds out by itself whether one is needed, and waits for the GPU in between; told that every kind of layer
needs none, it does not look.
"""

from typing import Any

_TOLD = ("gemma3_text", "qwen3")  # whose forward pass takes a mask by kind of layer


def causal_mask(config: Any, longest: int) -> dict[str, None] | None:
    """The `attention_mask` of rows of up to `longest` tokens that are padded on the right.

    A window that is shorter than a row has to be cut into a mask, which transformers does where it is given None.
    """
    if config.model_type not in _TOLD or config._attn_implementation != "sdpa":
        return None
    if getattr(config, "use_bidirectional_attention", False):
        return None
    if "sliding_attention" in config.layer_types and longest > config.sliding_window:
        return None
    return dict.fromkeys(config.layer_types)
