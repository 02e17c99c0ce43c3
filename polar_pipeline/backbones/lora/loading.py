"""Loading a pretrained model, so that no weights but the head's are left random.

`AutoModelForSequenceClassification` gives a multimodal Gemma 3 with its vision tower, and the text class takes none
of its weights. So class and keys are chosen here, and what is missing is an error. No checkpoint's code is ever run.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from polar_pipeline.backbones.lora.base_model import BaseModel, cast_inputs, fuse_norms
from polar_pipeline.backbones.lora.memory import (
    TooLarge,
    free_unused,
    none_if_out_of_memory,
    refuse_too_large,
    smaller_model_advice,
)
from polar_pipeline.backbones.lora.tunable import AdaptedModel, FineTunedModel, TunableModel
from polar_pipeline.errors import InputError
from polar_pipeline.pretrained.model_files import (
    HASHES,
    base_identity,
    bfloat16_on_gpu,
    check_downloaded,
    check_source,
    fetched,
    folder_identity,
    hub_commit,
    model_location,
    pick_device,
    silence_libraries,
)
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.storage.home import BASES

# multimodal checkpoints, as published and as transformers 5 writes them
_TEXT_TOWER = {r"^language_model\.model\.": "model.", r"^model\.language_model\.": "model."}
# what checkpoints hold beside the trunk: towers of other kinds, and heads of the tasks that they were pretrained for
_LEFT_OUT = re.compile(
    r"vision_tower|multi_modal_projector|lm_head|pooler|rotary_emb\.inv_freq|position_ids|mask_predictions|^cls\.|^decoder\."
)
_HEADS = ("score", "classifier")
_FOUR_BIT = ("gemma", "qwen", "llama", "mistral")
# types of models that are tested to give what transformers gives
FAMILIES = {
    "gemma3_text": "Gemma 3",
    "qwen3": "Qwen3",
    "qwen2": "Qwen2",
    "llama": "Llama",
    "mistral": "Mistral",
    "xlm-roberta": "XLM-RoBERTa",
    "roberta": "RoBERTa",
    "bert": "BERT",
    "deberta-v2": "DeBERTa-v2",
    "modernbert": "ModernBERT",
}
# the module between trunk and head; many checkpoints come without it, and then it begins as random as the head
_POOLERS = {"bert": "bert.pooler", "deberta-v2": "pooler", "modernbert": "head"}
_MIN_VOCABULARY = 256
_NOT_LINEAR = {"embed_tokens", "word_embeddings", "position_embeddings", "token_type_embeddings", "lm_head"}
_NOT_LINEAR |= {"tok_embeddings", "rel_embeddings", "decoder"}


def check_model_settings(settings: LoraSettings) -> None:
    """Raises InputError for what is wrong with a model's settings, without loading it or asking a hub."""
    check_source(settings.source)
    folder = Path(settings.model)
    if folder.is_dir() and settings.tuning == "lora" and not isinstance(settings.target_modules, str):
        layers = _linear_layer_names(folder)
        if layers and (unknown := [name for name in settings.target_modules if name not in layers]):
            raise InputError(
                f"backbone {settings.name!r}: target_modules {', '.join(unknown)} are no layers of {settings.model!r}, "
                f"use all-linear or some of {', '.join(sorted(layers))}."
            )


def _linear_layer_names(folder: Path) -> set[str]:
    """Last parts of the names of two-dimensional weights, as of linear layers; empty if a header cannot be read."""
    from safetensors import SafetensorError, safe_open

    found = set()
    try:
        for file in folder.glob("*.safetensors"):
            with safe_open(file, framework="numpy") as weights:
                named = [name.split(".") for name in weights.keys() if name.endswith(".weight")]  # noqa: SIM118
                found |= {part[-2] for part in named if len(weights.get_slice(".".join(part)).get_shape()) == 2}
    except (OSError, SafetensorError):
        return set()  # loading says what is wrong with the file
    return found - _NOT_LINEAR


def load_base(settings: LoraSettings, root: Path, at_least: float = 1.0, groups: tuple[int, ...] = ()) -> BaseModel:
    """The frozen base model of `settings` on its device, with a fresh head; tiny ones are built under `root` first.

    The head has one output for the label, and one for each finer label of the `groups` of these sizes.
    Raises InputError for a model that does not exist, is gated, damaged, of another architecture, or has other weights
    than its configuration asks for; TooLarge if free memory does not hold it, or not `at_least` times its weights.
    """
    import torch

    silence_libraries()
    device = pick_device(settings.device, settings.source.used_by)
    if device == "cpu":
        torch.set_num_threads(settings.threads)
    else:
        # its backward pass gives NaN on Hopper for some lengths
        torch.backends.cuda.enable_cudnn_sdp(False)
    dtype = pick_dtype(settings, device)
    location = model_location(settings.source, root)
    local = Path(location).is_dir()
    if not local:
        settings = settings.model_copy(update={"revision": hub_commit(location, settings.source)})
    config, tokenizer = _config(location, settings, 1 + sum(groups)), _tokenizer(location, settings)
    model_class = _model_class(config, settings)
    if settings.four_bit and not config.model_type.startswith(_FOUR_BIT):
        raise InputError(
            f"backbone {settings.name!r}: four_bit is for Gemma 3, Qwen3, Qwen2, Llama and Mistral, not for "
            f"{config.model_type}: set it to false, encoders are small."
        )
    refuse_too_large(model_class, config, settings, device, dtype, at_least)
    loaded = none_if_out_of_memory(lambda: _weights(model_class, location, config, settings, device, dtype))
    if loaded is None:
        raise TooLarge(
            f"model {settings.model!r} of backbone {settings.name!r} ran out of memory while it was loaded: "
            f"{smaller_model_advice(settings)}"
        )
    if not local:
        check_downloaded(location, settings.source, root / HASHES)
    identity = folder_identity(Path(location), root / HASHES) if local else settings.revision
    (model, untrained), pooler = loaded, _POOLERS.get(config.model_type, "")
    head = next(name for name in _HEADS if hasattr(model, name))
    for name in filter(None, (pooler, head)):
        cast_inputs(model.get_submodule(name))
    model.requires_grad_(False)
    if settings.tuning == "lora":
        fuse_norms(model)
    if settings.four_bit and device == "cpu":
        for module in model.modules():
            if hasattr(module, "support_avx512bf16_for_cpu"):
                # weights that bitsandbytes repacks for inference are rounded otherwise than in training
                module.support_avx512bf16_for_cpu = False
    how = (settings.model, identity, device, dtype, settings.max_length, pooler, untrained, groups)
    return BaseModel(model, tokenizer, head, *how)


def pick_dtype(settings: LoraSettings, device: str) -> Any:
    """The dtype of the frozen weights; float16 is not among them, because Gemma 3 overflows in it."""
    import torch

    automatic = torch.bfloat16 if device == "cuda" and bfloat16_on_gpu() else torch.float32
    return {"auto": automatic, "bfloat16": torch.bfloat16, "float32": torch.float32}[settings.dtype]


def _config(location: str, settings: LoraSettings, outputs: int) -> Any:
    from transformers import AutoConfig, PretrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    def found() -> Any:
        content, _ = PretrainedConfig.get_config_dict(location, revision=settings.revision)
        if "auto_map" in content and content.get("model_type") not in CONFIG_MAPPING:
            return None
        return AutoConfig.from_pretrained(location, revision=settings.revision, trust_remote_code=False)

    config = fetched(found, settings.source)
    if config is None:
        raise InputError(
            f"model {settings.model!r} of backbone {settings.name!r} works only with code of its own, which is never "
            f"run here: use one of the families {_families()}."
        )
    text = config.get_text_config()
    text.num_labels = outputs
    text.use_cache = False
    return text


def _tokenizer(location: str, settings: LoraSettings) -> Any:
    from transformers import AutoTokenizer

    found = fetched(
        lambda: AutoTokenizer.from_pretrained(location, revision=settings.revision, trust_remote_code=False),
        settings.source,
    )
    if not found.is_fast:
        raise InputError(f"model {settings.model!r} has no fast tokenizer (tokenizer.json): add one to its folder.")
    if (
        len(found) < _MIN_VOCABULARY
    ):  # where files are missing, transformers makes one that knows nothing, without a word
        raise InputError(
            f"the tokenizer of model {settings.model!r} knows {len(found)} tokens: add tokenizer.json to its folder."
        )
    return found


def _model_class(config: Any, settings: LoraSettings) -> Any:
    """The class with a classification head over the text tower."""
    from transformers import Gemma3TextForSequenceClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as KNOWN

    if config.model_type not in FAMILIES:
        raise InputError(
            f"model {settings.model!r} of backbone {settings.name!r} is of type {config.model_type!r}, "
            f"which is not supported: use one of the families {_families()}."
        )
    return Gemma3TextForSequenceClassification if config.model_type == "gemma3_text" else KNOWN[type(config)]


def _families() -> str:
    *most, last = FAMILIES.values()
    return f"{', '.join(most)} or {last}"


def _weights(
    model_class: Any, location: str, config: Any, settings: LoraSettings, device: str, dtype: Any
) -> tuple[Any, frozenset[str]]:
    """The model, and the names of its pooler's parameters that the checkpoint does not have."""
    from transformers import BitsAndBytesConfig

    # NF4 with double quantization (Dettmers et al. 2023); the head stays as it is, because it is trained
    four_bit = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    four_bit |= {"bnb_4bit_compute_dtype": dtype, "llm_int8_skip_modules": list(_HEADS)}

    def fetch() -> Any:
        return model_class.from_pretrained(
            location,
            config=config,
            revision=settings.revision,
            key_mapping=_TEXT_TOWER,
            output_loading_info=True,
            dtype=dtype,
            device_map={"": device},
            quantization_config=BitsAndBytesConfig(**four_bit) if settings.four_bit else None,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # reported below, with all else
            trust_remote_code=False,
        )

    model, found = fetched(fetch, settings.source)
    pooler = _POOLERS.get(config.model_type, "no pooler") + "."
    untrained = frozenset(key for key in found["missing_keys"] if key.startswith(pooler))
    missing = sorted(key for key in found["missing_keys"] if key not in untrained and not key.startswith(_HEADS))
    unexpected = sorted(
        key for key in found["unexpected_keys"] if not _LEFT_OUT.search(key) and not key.startswith(_HEADS)
    )
    unexpected += sorted(key for key, *_ in found["mismatched_keys"] if not key.startswith(_HEADS))
    if missing or unexpected:
        named = ", ".join((missing + unexpected)[:3])
        raise InputError(
            f"the weights of model {settings.model!r} do not fit its configuration: {len(missing)} are missing "
            f"and {len(unexpected)} have no place, such as {named}: fetch the model again, "
            f"or name one whose architecture transformers knows."
        )
    return model, untrained


# what a loaded model depends on; backbones that differ elsewhere share it
_LOADED_BY = {"model", "revision", "device", "threads", "dtype", "four_bit", "tuning"}
_BESIDE_OTHERS = 2.0  # free memory in shares of the weights: as much again for gradients and activations


class ModelCache:
    """Base models, each loaded on first use, for all languages and folds that the process trains. Not thread-safe.

    Several stay as long as there is memory; those that were there leave before it gets short.
    """

    def __init__(self) -> None:
        self._models: dict[tuple[str, tuple[int, ...]], TunableModel] = {}
        self._refused: dict[
            tuple[str, tuple[int, ...]], str
        ] = {}  # why a model cannot be had: the hub is not asked again for every language
        self.loads = 0  # how often a base was loaded

    def get(self, settings: LoraSettings, root: Path, groups: tuple[int, ...] = ()) -> TunableModel:
        """The base of `settings` with a head for these groups of finer labels, to be adapted or fine-tuned.

        Raises InputError as `load_base`.
        """
        key = settings.model_dump_json(include=_LOADED_BY), groups
        if key not in self._models:
            self._models[key] = self._load(settings, root / BASES, groups)
            self.loads += 1
        self._models[key].configure(settings)
        return self._models[key]

    def identity(self, settings: LoraSettings, root: Path, groups: tuple[int, ...] = ()) -> str:
        """Which weights the base of `settings` has; it is not loaded for that. Raises InputError as `load_base`."""
        key = settings.model_dump_json(include=_LOADED_BY), groups
        if key in self._models:
            return self._models[key].base.identity
        if key in self._refused:
            raise InputError(self._refused[key])
        try:
            return base_identity(settings.source, root / BASES)
        except InputError as error:
            self._refused[key] = str(error)
            raise

    def release(self) -> None:
        """Give the memory back."""
        if self._models:
            self._models.clear()
            free_unused()

    def _load(self, settings: LoraSettings, root: Path, groups: tuple[int, ...]) -> TunableModel:
        kind = AdaptedModel if settings.tuning == "lora" else FineTunedModel
        if self._models:
            with suppress(TooLarge):
                return kind(load_base(settings, root, _BESIDE_OTHERS, groups), settings)
            self.release()
        return kind(load_base(settings, root, groups=groups), settings)
