"""A model before it is loaded: whether its settings can be right, where it is, and which weights it has; tiny models.

Which weights a base has is known by the sha256 of all its weight, configuration and tokenizer files. Hashes are
remembered by path, size and times of change, so that 54 GB are read once.

Tiny models with random weights, built in place, test the path without pretrained weights. They have the layouts of real
checkpoints: a Gemma 3 text model (six layers, or it would never see full attention), the multimodal one that Gemma 3 4B
and larger are published as, Qwen3, and XLM-RoBERTa. Their tokenizer knows the 256 bytes.
"""

import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import TINY, LoraSettings
from polar_pipeline.storage.files import write_atomic, write_folder_atomic
from polar_pipeline.storage.fingerprint import canonical_json, file_sha256, fingerprint

HASHES = "file_hashes.json"

VERSION = 1  # of tiny models: raised when the same name and seed give other weights

_RECENT = 2 * 10**9  # nanoseconds: a file that changed so shortly ago may change again within one tick of its clock
_NOT_LINEAR = {"embed_tokens", "word_embeddings", "position_embeddings", "token_type_embeddings", "lm_head"}
_MODEL_FILE = re.compile(
    r".*\.safetensors(\.index\.json)?|config\.json|(tokenizer|special_tokens|added_tokens|vocab|merges|sentencepiece|spiece).*"
)
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


def check_model_settings(settings: LoraSettings) -> None:
    """Raises InputError for what is wrong with a model's settings, without loading it or asking a hub."""
    if settings.untrained:
        check_tiny(settings.model)
        return
    folder = Path(settings.model)
    if not folder.is_dir():
        # a name on the hub is `name` or `owner/name`
        if settings.model.startswith((".", "/", "~")) or settings.model.count("/") > 1:
            raise InputError(
                f"model {settings.model!r} of backbone {settings.name!r} is no folder: correct its path, "
                f"or give the name of a model on the hub."
            )
        return
    if not (folder / "config.json").is_file():
        raise InputError(
            f"folder {folder} of backbone {settings.name!r} holds no config.json: give the folder of a model."
        )
    if settings.tuning == "lora" and not isinstance(settings.target_modules, str):
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


def model_location(settings: LoraSettings, root: Path) -> str:
    """A folder, or a name on the hub. Tiny models are built under `root`."""
    if not settings.untrained:
        return settings.model
    silence_libraries()
    return str(tiny_checkpoint(settings.model, root))


def silence_libraries() -> None:
    """No progress bars and no tables of missing keys, which `load_base` reports in a sentence."""
    import logging

    from transformers.utils import logging as transformers_logging

    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it says that kernels for CPUs could be faster
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def base_identity(settings: LoraSettings, root: Path) -> str:
    """Which weights the base of `settings` has, without loading it: sha256 of its files, or the commit at the hub.

    `root` is the folder of bases, where hashes are remembered. Raises InputError if the model cannot be had.
    """
    location = model_location(settings, root)
    if not Path(location).is_dir():
        return hub_commit(location, settings)
    return folder_identity(Path(location), root / HASHES)


def folder_identity(folder: Path, cache: Path) -> str:
    """sha256 of a model's weights, configuration and tokenizer. Raises InputError if one cannot be read."""
    try:
        files = sorted(file for file in folder.iterdir() if file.is_file() and _MODEL_FILE.fullmatch(file.name))
        digests = cached_sha256(files, cache)
    except OSError as error:
        raise InputError(f"model {folder} cannot be read ({error}): allow it, or fetch the model again.") from error
    return fingerprint([[file.name, digest] for file, digest in zip(files, digests, strict=True)])


def hub_commit(location: str, settings: LoraSettings) -> str:
    """The commit of the revision at the hub; it holds the sha256 of every large file, see `check_downloaded`."""
    return _snapshot(location, settings).name  # the cache has a folder per commit


def check_downloaded(location: str, settings: LoraSettings, cache: Path) -> None:
    """Raises InputError if a downloaded file is not what the hub published: it keeps large files under their sha256."""
    folder = _snapshot(location, settings)
    files = [file for file in sorted(folder.iterdir()) if re.fullmatch(r"[0-9a-f]{64}", file.resolve().name)]
    for file, digest in zip(files, cached_sha256(files, cache), strict=True):
        if digest != file.resolve().name:
            raise InputError(
                f"{file.name} of model {settings.model!r} is damaged (its sha256 is not the published one): "
                f"remove {file.resolve()}, it is then downloaded again."
            )


def _snapshot(location: str, settings: LoraSettings) -> Path:
    from huggingface_hub import hf_hub_download

    file = fetched(lambda: hf_hub_download(location, "config.json", revision=settings.revision), settings)
    return Path(file).parent


def fetched(fetch: Callable[[], Any], settings: LoraSettings) -> Any:
    """The result of `fetch`. Raises InputError instead of the many errors with which a model cannot be had."""
    from huggingface_hub.errors import GatedRepoError
    from safetensors import SafetensorError

    try:
        return fetch()
    except (OSError, ValueError, SafetensorError) as error:
        gated = isinstance(error, GatedRepoError) or isinstance(error.__cause__, GatedRepoError)
        if gated or "You are trying to access a gated repo" in str(error):  # a missing one mentions gated ones too
            raise InputError(
                f"model {settings.model!r} is gated: accept its licence at https://huggingface.co/{settings.model} "
                f"and set HF_TOKEN to a token of the account that did."
            ) from error
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"model {settings.model!r} (revision {settings.revision}) of backbone {settings.name!r} cannot be loaded "
            f"({reason}): check its name or folder, and that the hub can be reached."
        ) from error


def cached_sha256(files: list[Path], cache: Path) -> list[str]:
    """sha256 of each file; those of files that did not change since are read from the JSON file `cache`."""
    known = _read_cache(cache)
    found, added = [], False
    for file in files:
        stat, now = file.stat(), time.time_ns()
        path, state = str(file.resolve()), [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        entry = known.get(path, [])
        if entry[:-1] != state:
            entry = [*state, file_sha256(file)]
            if now - stat.st_ctime_ns > _RECENT:
                known[path], added = entry, True
        found.append(entry[-1])
    if added and os.access(cache.parent, os.W_OK):  # a home that may only be read is hashed each time
        known = {path: entry for path, entry in known.items() if Path(path).exists()}
        write_atomic(cache, canonical_json({"files": known, "sha256": fingerprint(known)}))
    return found


def _read_cache(cache: Path) -> dict[str, list[Any]]:
    """What is remembered; nothing if the file is damaged, because a wrong hash would refuse a good adapter."""
    try:
        found = json.loads(cache.read_bytes())
        known: dict[str, list[Any]] = found["files"]
        return known if found["sha256"] == fingerprint(known) else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


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
