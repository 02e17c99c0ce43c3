"""A checkpoint: everything that the next step of a training depends on, in one safetensors file that is whole or not there.

What does not belong here: finished adapters.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from polar_pipeline.errors import InputError
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.storage.fingerprint import canonical_json

if TYPE_CHECKING:
    from torch import Tensor

_FACTS = "facts"


def write_checkpoint(path: Path, tensors: "dict[str, Tensor]", facts: dict[str, Any]) -> None:
    """Put tensors, and facts that JSON can say, at `path`."""
    from safetensors.torch import save

    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(flat, metadata={_FACTS: canonical_json(facts).decode()}))


def read_checkpoint(path: Path) -> "tuple[dict[str, Tensor], dict[str, Any]] | None":
    """What was written, or None where nothing was. Raises InputError when the file is damaged."""
    import json

    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(file.metadata()[_FACTS])  # noqa: SIM118
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"checkpoint {path} is damaged ({error}): remove it, its training then begins anew."
        ) from error
