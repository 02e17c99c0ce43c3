"""Loading an encoder as sentence-transformers reads it: no code of the folder, no pickle, no random weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from polar_pipeline.errors import InputError
from polar_pipeline.pretrained.model_files import bfloat16_on_gpu, read_json, refuse_foreign_code, silence_libraries
from polar_pipeline.settings.models import Encoding

_POOLING = {"mean": "mean", "cls": "cls", "last_token": "lasttoken", "max": "max"}
# what the libraries raise for folders that hold no encoder, or half of one
_BROKEN = (OSError, ValueError, LookupError, RuntimeError, TypeError, AttributeError, ImportError)


def fastest_precision(device: str) -> str:
    """bfloat16 or int8 where the hardware has instructions for it, else float32."""
    import torch

    if device == "cuda":
        return "bfloat16" if bfloat16_on_gpu() else "float32"
    if device == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return "bfloat16"
    return "int8" if device == "cpu" and torch.cpu._is_vnni_supported() else "float32"


def load_model(folder: Path, encoding: Encoding, device: str, precision: str) -> Any:
    """A `SentenceTransformer` of a folder, ready to embed. Runs no code of the folder and reads no pickle.

    Raises InputError for what is no encoder, is damaged, or lacks weights.
    """
    import torch
    from safetensors import SafetensorError

    source = encoding.source
    silence_libraries()
    refuse_foreign_code(folder, source)
    try:
        model = _read(folder, encoding, device)
        transformer = getattr(model[0], "auto_model", None)
        if transformer is not None:
            _refuse_missing_weights(transformer, folder, encoding)
    except InputError:
        raise
    except (*_BROKEN, SafetensorError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"folder {folder} of {source.used_by} cannot be loaded as an encoder ({reason}): "
            f"fetch the model again, or name another."
        ) from error
    _refuse_other_kinds(model[0], encoding)
    model.eval()
    if transformer is not None and precision == "bfloat16":
        transformer.to(torch.bfloat16)
    elif transformer is not None and precision == "int8":
        quantize_linear(transformer)
    return model


def _refuse_other_kinds(first: Any, encoding: Encoding) -> None:
    """Raises InputError unless a model begins with a transformer, or with static embeddings and no setting of one."""
    kind, used_by = type(first).__name__, encoding.source.used_by
    if kind not in ("Transformer", "StaticEmbedding"):
        raise InputError(
            f"the model of {used_by} begins with a module {kind}, which is not supported: "
            f"name one that begins with a Transformer, or static embeddings."
        )
    useless = [name for name in ("layers", "max_length") if getattr(encoding, name)]
    useless += ["pooling"] if encoding.pooling != "auto" else []
    if kind == "StaticEmbedding" and useless:
        raise InputError(f"the model of {used_by} has static embeddings, which know no {useless[0]}: leave it out.")


def _read(folder: Path, encoding: Encoding, device: str) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, StaticEmbedding

    options: dict[str, Any] = {"device": device, "local_files_only": True, "trust_remote_code": False}
    static = _static_weights(folder)
    if static is not None:
        tokenizer, vectors, unit = static
        modules: list[Any] = [StaticEmbedding(tokenizer, embedding_weights=vectors), *([Normalize()] if unit else [])]
        return SentenceTransformer(modules=modules, device=device)
    model = SentenceTransformer(str(folder), model_kwargs={"use_safetensors": True, "dtype": torch.float32}, **options)
    if encoding.pooling != "auto" and type(model[0]).__name__ == "Transformer":
        transformer: Any = model[0]
        width = transformer.get_embedding_dimension()
        chosen = Pooling(width, pooling_mode=_POOLING[encoding.pooling])
        return SentenceTransformer(modules=[transformer, chosen], device=device)
    return model


def _static_weights(folder: Path) -> tuple[Any, Any, bool] | None:
    """Tokenizer, vectors float32 (tokens, dimensions), and whether texts get unit vectors; of a model2vec folder.

    None if the folder is none. Tokens may share vectors (`mapping`) and have weights.
    """
    from safetensors import safe_open
    from tokenizers import Tokenizer

    file = folder / "model.safetensors"
    if not file.is_file():
        return None
    with safe_open(file, framework="numpy") as stored:
        names = stored.keys()
        if "embeddings" not in names:
            return None
        tensors = {name: stored.get_tensor(name) for name in names}
    config = read_json(folder / "config.json")
    vectors = tensors["embeddings"].astype(np.float32)
    if "mapping" in tensors:
        vectors = vectors[tensors["mapping"]]
    if "weights" in tensors:
        vectors = vectors * tensors["weights"].astype(np.float32)[:, None]
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers has no class of its own for a file that is missing or damaged
        raise ValueError(f"tokenizer.json: {error}") from error
    tokenizer.enable_truncation(config.get("max_length") or 512)
    unknown = tokenizer.token_to_id(json.loads(tokenizer.to_str())["model"].get("unk_token") or "")
    if unknown is not None:
        vectors[unknown] = 0  # model2vec leaves it out
    return tokenizer, vectors, bool(config.get("normalize", True))


def _refuse_missing_weights(model: Any, folder: Path, encoding: Encoding) -> None:
    """Transformers fills weights that a checkpoint lacks with random numbers; an unused pooler alone may be."""
    from safetensors import safe_open

    stored: set[str] = set()
    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="numpy") as weights:
            for key in weights.keys():  # noqa: SIM118
                parts = key.split(".")  # a checkpoint may have more before the names that a model has
                stored |= {".".join(parts[start:]) for start in range(len(parts))}
    names = {name for name, _ in model.named_parameters() if "pooler" not in name}
    if names <= stored:
        return
    _, found = type(model).from_pretrained(folder, output_loading_info=True, use_safetensors=True)  # it renames some
    if missing := sorted(name for name in found["missing_keys"] if "pooler" not in name):
        raise InputError(
            f"the weights in {folder} of {encoding.source.used_by} lack {len(missing)} that its configuration asks "
            f"for, such as {missing[0]}: fetch the model again."
        )


def quantize_linear(model: Any) -> None:
    """Replace every linear layer by one with 8-bit weights, a scale per output, in place.

    Inputs are quantized row by row as they come, so a row's result is the same in any batch, because sums of integers
    are exact; torch's own dynamic quantization has one scale for a whole batch.
    """
    import torch

    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear):
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], _int8_linear(module))


def _int8_linear(layer: Any) -> Any:
    import torch

    class Int8Linear(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            weights = layer.weight.detach().float()
            self.scale = weights.abs().amax(dim=1).clamp(min=1e-12) / 127
            # transposed for the product; stored row by row, which oneDNN reads fastest
            self.weights = torch.round(weights / self.scale[:, None]).to(torch.int8).t()
            self.bias = None if layer.bias is None else layer.bias.detach().float()
            self.weight = layer.weight[:0]  # some models look at its type

        def forward(self, inputs: Any) -> Any:
            rows = inputs.reshape(-1, inputs.shape[-1])
            scale = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
            product = torch._int_mm(torch.round(rows / scale).to(torch.int8), self.weights)
            results = product.float().mul_(scale).mul_(self.scale)
            if self.bias is not None:
                results.add_(self.bias)
            return results.view(*inputs.shape[:-1], -1)

    return Int8Linear()
