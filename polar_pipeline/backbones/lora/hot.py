"""Logits that an adapter gave right after training, kept by adapter and texts, so that scoring need not load the base again."""

from pathlib import Path

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.storage.fingerprint import fingerprint


def read_hot(root: Path, ref: AdapterRef, texts: list[str]) -> Floats | None:
    """Logits float64 (seeds, texts), or None where they were never computed."""
    from safetensors.numpy import load_file

    path = _path(root, ref, texts)
    found: Floats | None = load_file(path)["logits"] if path.exists() else None
    return found


def write_hot(root: Path, ref: AdapterRef, texts: list[str], logits: Floats) -> None:
    """Keep them."""
    from safetensors.numpy import save

    write_atomic(_path(root, ref, texts), save({"logits": logits}))


def _path(root: Path, ref: AdapterRef, texts: list[str]) -> Path:
    key = fingerprint([ref.sha256, texts])
    return root / "scored" / ref.backbone / ref.language / f"{key[:16]}.safetensors"
