"""What can be said of a model's settings before anything is computed: whether a folder is there and has the layers that are named.

Nothing is loaded and no hub is asked; what only loading can tell is told by `loading`. What does not belong here: settings that
contradict each other, which the profile refuses.
"""

import json
from pathlib import Path

from polar_pipeline.backbones.lora.tiny import check_tiny
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import LoraSettings

_NOT_LINEAR = {"embed_tokens", "word_embeddings", "position_embeddings", "token_type_embeddings", "lm_head"}


def check_early(settings: LoraSettings) -> None:
    """Raises InputError for a tiny model or a folder that does not exist, a folder that holds no model, and layers that it does not have."""
    if settings.untrained:
        check_tiny(settings.model)
        return
    folder = Path(settings.model)
    if not folder.is_dir():
        if _is_path(settings.model):
            raise InputError(
                f"model {settings.model!r} of backbone {settings.name!r} is no folder: correct its path, or give the name of a model on the hub."
            )
        return
    if not (folder / "config.json").is_file():
        raise InputError(
            f"folder {folder} of backbone {settings.name!r} holds no config.json: give the folder of a model."
        )
    if settings.tuning == "lora" and not isinstance(settings.target_modules, str):
        layers = _layers(folder)
        if layers and (unknown := [name for name in settings.target_modules if name not in layers]):
            raise InputError(
                f"backbone {settings.name!r}: target_modules {', '.join(unknown)} are no layers of {settings.model!r}, "
                f"use all-linear or some of {', '.join(sorted(layers))}."
            )


def _is_path(model: str) -> bool:
    """Whether it cannot be a name on the hub, which is `name` or `owner/name`."""
    return model.startswith((".", "/", "~")) or model.count("/") > 1


def _layers(folder: Path) -> set[str]:
    """Last parts of the names of weights with two dimensions, which linear layers have; none where no header can be read."""
    found = set()
    try:
        for file in folder.glob("*.safetensors"):
            with file.open("rb") as handle:
                header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
            for name, tensor in header.items():
                parts: list[str] = name.split(".")
                if parts[-1] == "weight" and len(tensor["shape"]) == 2:
                    found.add(parts[-2])
    except (OSError, ValueError, MemoryError, OverflowError, AttributeError, TypeError, LookupError):
        return set()  # loading says what is wrong with the file
    return found - _NOT_LINEAR
