"""The Gemma 3 shapes of `lora_speed.py`, with random weights: speed does not depend on values."""

from typing import Any

import torch

from polar_pipeline.backbones.lora.base_model import BaseModel, fuse_norms
from polar_pipeline.pretrained.tiny import tokenizer
from polar_pipeline.settings.backbones import LoraSettings

LONGEST = 256
TINY = {"vocab_size": 260, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6, "head_dim": 16}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 32}
LARGE = {"vocab_size": 262208, "sliding_window": 1024}
SHAPES: dict[str, dict[str, Any]] = {  # text towers of google/gemma-3-12b-pt and google/gemma-3-27b-pt
    "tiny": TINY,
    "12b": LARGE | {"hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48, "num_attention_heads": 16}
    | {"num_key_value_heads": 8, "head_dim": 256, "query_pre_attn_scalar": 256},
    "27b": LARGE | {"hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 62, "num_attention_heads": 32}
    | {"num_key_value_heads": 16, "head_dim": 128, "query_pre_attn_scalar": 168},
}  # fmt: skip
KNOWN_BILLIONS = {"12b": 10.76, "27b": 25.6}


def model_class() -> Any:
    from transformers import Gemma3TextForSequenceClassification

    return Gemma3TextForSequenceClassification


def config_of(shape: str, **changed: Any) -> Any:
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(**(SHAPES[shape] | {"num_labels": 1, "pad_token_id": 0, "use_cache": False} | changed))


def build(config: Any, device: str) -> BaseModel:
    """A model with random weights, made where it will be, prepared as `load_base` prepares one."""
    dtype = torch.bfloat16 if device == "cuda" or config.hidden_size > 1000 else torch.float32
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = model_class()(config).eval().requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    fuse_norms(model)
    return BaseModel(model, tokenizer(), "score", "random", "random", device, dtype, LONGEST)


def as_published(base: BaseModel) -> None:
    """Take out what `build` prepared, for a peer that trains the model as transformers has it."""
    for module in base.model.modules():
        module.__dict__.pop("forward", None)


def settings_for(device: str, **changed: Any) -> LoraSettings:
    plain = {"name": "bench", "kind": "lora", "model": "random", "device": device, "max_length": LONGEST, "epochs": 2}
    plain |= {"rank": 16, "alpha": 32, "token_budget": 2048 if device == "cuda" else 512, "checkpoint_seconds": 1e9}
    return LoraSettings(**(plain | changed))


def weights_outside_embeddings(shape: str) -> int:
    """N of the floor; the true shapes are held against the published counts."""
    with torch.device("meta"):
        model = model_class()(config_of(shape))
    count = sum(weight.numel() for name, weight in model.named_parameters() if ".layers." in name)
    known = KNOWN_BILLIONS.get(shape)
    if known and abs(count / 1e9 / known - 1) > 0.005:
        raise SystemExit(f"{shape} has {count:,} weights outside embeddings instead of {known} billion")
    return count
