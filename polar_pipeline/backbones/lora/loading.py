"""Loading a pretrained model so that no weight is left random but the head's: text tower, key by key, or one clear sentence.

`AutoModelForSequenceClassification` gives a multimodal Gemma 3 with its vision tower, and the text class takes none of a multimodal
checkpoint's weights without a word. So the class is chosen here, keys are mapped, and what is missing is counted.
No code from a checkpoint is ever run. What does not belong here: adapters.
"""

import re
from pathlib import Path
from typing import Any

from polar_pipeline.backbones.lora.attempts import attempted
from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.backbones.lora.memory import TooLarge, refuse_too_large, remedy
from polar_pipeline.backbones.lora.norms import fuse_norms
from polar_pipeline.backbones.lora.tiny import tiny_checkpoint
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.storage.fingerprint import fingerprint

# multimodal checkpoints, as published and as transformers 5 writes them
_TEXT_TOWER = {r"^language_model\.model\.": "model.", r"^model\.language_model\.": "model."}
_LEFT_OUT = re.compile(r"vision_tower|multi_modal_projector|lm_head|pooler|rotary_emb\.inv_freq")
_HEADS = ("score", "classifier")
_FOUR_BIT = ("gemma", "qwen", "llama", "mistral")
# types of models whose post is pooled as `BaseModel.logits` does it: the last token's, or an encoder's first through its own head
FAMILIES = {
    "gemma3_text": "Gemma 3",
    "qwen3": "Qwen3",
    "qwen2": "Qwen2",
    "llama": "Llama",
    "mistral": "Mistral",
    "xlm-roberta": "XLM-RoBERTa",
    "roberta": "RoBERTa",
}
_HEADER = 1 << 16
_VOCABULARY = 256


def load_base(settings: LoraSettings, root: Path, beside: float = 1.0) -> BaseModel:
    """The frozen base model of `settings` on its device, with a fresh head; tiny ones are built under `root` first.

    Raises InputError that says what is missing and what to do: a model that is not there or gated, of another
    architecture, with other weights than its configuration asks for; TooLarge when it does not fit into memory, or not `beside` times.
    """
    import torch

    quiet()
    device = pick_device(settings)
    if device == "cpu":
        torch.set_num_threads(settings.threads)
    else:
        # its backward pass gives NaN on Hopper for some lengths
        torch.backends.cuda.enable_cudnn_sdp(False)
    dtype = pick_dtype(settings, device)
    place = _place(settings, root)
    if not Path(place).is_dir():
        settings = settings.model_copy(update={"revision": _commit(place, settings)})
    config, tokenizer = _config(place, settings), _tokenizer(place, settings)
    model_class = _model_class(config, settings)
    if settings.four_bit and not config.model_type.startswith(_FOUR_BIT):
        raise InputError(
            f"backbone {settings.name!r}: four_bit is for Gemma 3 and Qwen3, not for {config.model_type}: set it to false, encoders are small."
        )
    refuse_too_large(model_class, config, settings, device, dtype, beside)
    model = attempted(lambda: _weights(model_class, place, config, settings, device, dtype))
    if model is None:
        raise TooLarge(
            f"model {settings.model!r} of backbone {settings.name!r} ran out of memory while it was loaded: {remedy(settings)}"
        )
    head = next(name for name in _HEADS if hasattr(model, name))
    model.requires_grad_(False)
    if settings.tuning == "lora":
        fuse_norms(model)
    if settings.four_bit and device == "cpu":
        _same_in_training_and_scoring(model)
    return BaseModel(
        model, tokenizer, head, settings.model, identity(place, settings.revision), device, dtype, settings.max_length
    )


def quiet() -> None:
    """No bars, and no tables of keys: what is missing is said in a sentence, here."""
    import logging

    from transformers.utils import logging as transformers_logging

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it says that kernels for CPUs could be faster
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def pick_device(settings: LoraSettings) -> str:
    """`cuda` or `cpu`. Raises InputError when a GPU is asked for and none is there."""
    import torch

    available = torch.cuda.is_available()
    if settings.device == "cuda" and not available:
        raise InputError(
            f"backbone {settings.name!r} asks for device cuda and there is none: set device to auto or cpu."
        )
    return "cuda" if available and settings.device != "cpu" else "cpu"


def pick_dtype(settings: LoraSettings, device: str) -> Any:
    """The dtype of the frozen weights; float16 is not among them, because Gemma 3 overflows in it."""
    import torch

    automatic = torch.bfloat16 if device == "cuda" else torch.float32
    return {"auto": automatic, "bfloat16": torch.bfloat16, "float32": torch.float32}[settings.dtype]


def base_identity(settings: LoraSettings, root: Path) -> str:
    """What `load_base` would give as the base's identity, from its configuration, tokenizer and headers alone. Raises InputError as it does."""
    quiet()
    place = _place(settings, root)
    return identity(place, settings.revision if Path(place).is_dir() else _commit(place, settings))


def _place(settings: LoraSettings, root: Path) -> str:
    """A folder, or a name on the hub; tiny models are built under `root`."""
    return str(tiny_checkpoint(settings.model, root)) if settings.untrained else settings.model


def identity(place: str, commit: str) -> str:
    """What the base is: the hub's commit, or a fingerprint of a folder's configuration, tokenizer, and headers and first bytes of its weights."""
    folder = Path(place)
    if not folder.is_dir():
        return commit
    parts = []
    for file in sorted(folder.iterdir()):
        if file.suffix == ".safetensors":
            with file.open("rb") as handle:
                length = int.from_bytes(handle.read(8), "little")
                parts.append([file.name, file.stat().st_size, handle.read(length + _HEADER).hex()])
        elif file.name in {"config.json", "tokenizer.json"}:
            parts.append([file.name, file.stat().st_size, file.read_bytes().hex()])
    return fingerprint(parts)


def _commit(place: str, settings: LoraSettings) -> str:
    """What the revision is at the hub by now, so that configuration, tokenizer and weights are of one commit, whose name is kept."""
    from huggingface_hub import hf_hub_download

    file = _fetched(lambda: hf_hub_download(place, "config.json", revision=settings.revision), settings)
    return Path(file).parent.name  # the cache has a folder a commit


def _config(place: str, settings: LoraSettings) -> Any:
    from transformers import AutoConfig

    config = _fetched(
        lambda: AutoConfig.from_pretrained(place, revision=settings.revision, trust_remote_code=False), settings
    )
    text = config.get_text_config()
    text.num_labels = 1
    text.use_cache = False
    return text


def _tokenizer(place: str, settings: LoraSettings) -> Any:
    from transformers import AutoTokenizer

    found = _fetched(
        lambda: AutoTokenizer.from_pretrained(place, revision=settings.revision, trust_remote_code=False), settings
    )
    if not found.is_fast:
        raise InputError(f"model {settings.model!r} has no fast tokenizer (tokenizer.json): add one to its folder.")
    if len(found) < _VOCABULARY:  # where files are missing, transformers makes one that knows nothing, without a word
        raise InputError(
            f"the tokenizer of model {settings.model!r} knows {len(found)} tokens: add tokenizer.json to its folder."
        )
    return found


def _fetched(fetch: Any, settings: LoraSettings) -> Any:
    """What `fetch` gives. Raises InputError in place of the many ways in which a model cannot be had."""
    from huggingface_hub.errors import GatedRepoError
    from safetensors import SafetensorError

    try:
        return fetch()
    except (OSError, ValueError, SafetensorError) as error:
        gated = isinstance(error, GatedRepoError) or isinstance(error.__cause__, GatedRepoError)
        if gated or "You are trying to access a gated repo" in str(error):  # a missing one mentions gated ones too
            raise InputError(
                f"model {settings.model!r} is gated: accept its licence at https://huggingface.co/{settings.model} and set "
                f"HF_TOKEN to a token of the account that did."
            ) from error
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"model {settings.model!r} (revision {settings.revision}) of backbone {settings.name!r} cannot be loaded ({reason}): "
            f"check its name or folder, and that the hub can be reached."
        ) from error


def _model_class(config: Any, settings: LoraSettings) -> Any:
    """The class with a classification head over the text tower."""
    from transformers import Gemma3TextForSequenceClassification
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING as KNOWN

    if config.model_type not in FAMILIES:
        *most, last = FAMILIES.values()
        raise InputError(
            f"model {settings.model!r} of backbone {settings.name!r} is of type {config.model_type!r}, which is not supported: "
            f"use one of the families {', '.join(most)} or {last}."
        )
    return Gemma3TextForSequenceClassification if config.model_type == "gemma3_text" else KNOWN[type(config)]


def _weights(model_class: Any, place: str, config: Any, settings: LoraSettings, device: str, dtype: Any) -> Any:
    def fetch() -> Any:
        return model_class.from_pretrained(
            place,
            config=config,
            revision=settings.revision,
            key_mapping=_TEXT_TOWER,
            output_loading_info=True,
            dtype=dtype,
            device_map={"": device},
            quantization_config=_four_bit(dtype) if settings.four_bit else None,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # they are said below, with all else
            trust_remote_code=False,
        )

    model, found = _fetched(fetch, settings)
    missing = sorted(key for key in found["missing_keys"] if not key.startswith(_HEADS))
    strange = sorted(
        key for key in found["unexpected_keys"] if not _LEFT_OUT.search(key) and not key.startswith(_HEADS)
    )
    strange += sorted(key for key, *_ in found["mismatched_keys"] if not key.startswith(_HEADS))
    if missing or strange:
        named = ", ".join((missing + strange)[:3])
        raise InputError(
            f"the weights of model {settings.model!r} do not fit its configuration: {len(missing)} are missing and {len(strange)} "
            f"have no place, such as {named}: fetch the model again, or name one whose architecture transformers knows."
        )
    return model


def _same_in_training_and_scoring(model: Any) -> None:
    """On some CPUs bitsandbytes packs weights anew when it scores, which rounds otherwise than in training."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _four_bit(dtype: Any) -> Any:
    """NF4 with double quantization (Dettmers et al. 2023); the head stays as it is, because it is trained."""
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=list(_HEADS),
    )
