"""Tiny models with random weights, built in place, which test the path without pretrained weights.

They have the layouts of real checkpoints: a Gemma 3 text model (six layers, or it would never see full attention), the
multimodal one that Gemma 3 4B and larger are published as, Qwen3, and XLM-RoBERTa. Their tokenizer knows the 256 bytes.
"""

from pathlib import Path
from typing import Any

from polar_pipeline.errors import InputError
from polar_pipeline.settings.models import TINY
from polar_pipeline.storage.files import write_folder_atomic

VERSION = 1  # raised when the same name and seed give other weights

_SPECIAL = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
_SHAPE: dict[str, Any] = {
    "vocab_size": len(_SPECIAL) + 256,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 1024,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
_WINDOW = {"sliding_window": 32}
_VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
_VISION |= {"image_size": 28, "patch_size": 14}
_MULTIMODAL = {"text_config": _SHAPE | _WINDOW, "vision_config": _VISION, "mm_tokens_per_image": 4}
_ENCODER = {key: value for key, value in _SHAPE.items() if key not in {"num_key_value_heads", "head_dim"}}
_MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM", _SHAPE | _WINDOW),
    "gemma3_multimodal": ("Gemma3Config", "Gemma3ForConditionalGeneration", _MULTIMODAL),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", _SHAPE),
    "xlm_roberta": ("XLMRobertaConfig", "XLMRobertaForMaskedLM", _ENCODER | {"type_vocab_size": 1}),
}


def tiny_checkpoint(name: str, root: Path, seed: int = 0) -> Path:
    """The folder under `root` with the checkpoint `name`, built if needed. Raises InputError as `check_tiny`."""
    check_tiny(name)
    shape = name.removeprefix(TINY)
    name_of_config, name_of_class, sizes = _MODELS[shape]

    def fill(folder: Path) -> None:
        import torch
        import transformers

        # no state of the caller's random numbers goes in, none is changed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = getattr(transformers, name_of_class)(getattr(transformers, name_of_config)(**sizes))
        model.save_pretrained(folder)
        tokenizer().save_pretrained(folder)

    return write_folder_atomic(root / f"tiny-{shape}-{VERSION}-{seed}", fill)


def check_tiny(name: str) -> None:
    """Raises InputError for a name that is no tiny model's; builds none."""
    if name.removeprefix(TINY) not in _MODELS:
        known = ", ".join(TINY + shape for shape in _MODELS)
        raise InputError(
            f"model {name!r} is no tiny model: use one of {known}, a folder, or the name of one on the hub."
        )


def tokenizer() -> Any:
    """A byte-level tokenizer: `<bos>`, then one token per UTF-8 byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*_SPECIAL.values(), *alphabet])}
    fast = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=_SPECIAL["unk_token"]))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    bos = _SPECIAL["bos_token"]
    fast.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])])
    return PreTrainedTokenizerFast(tokenizer_object=fast, **_SPECIAL)
