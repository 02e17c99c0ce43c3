"""What a training or scoring measured, kept beside the adapters: whoever finds the work done can still say what it took.

Not in the adapter, whose bytes should not depend on how busy a machine was. What does not belong here: logits.
"""

import json
from pathlib import Path

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.storage.fingerprint import canonical_json

Figures = dict[str, float]


def keep_figures(root: Path, ref: AdapterRef, figures: Figures, what: str = "training") -> None:
    """Note figures of an adapter; a later measurement of the same `what` replaces the earlier."""
    write_atomic(_path(root, ref, what), canonical_json(figures))


def kept_figures(root: Path, ref: AdapterRef, what: str = "training") -> Figures:
    """What was noted; nothing where nothing was, or where the note is damaged: nothing is decided by it."""
    try:
        found = json.loads(_path(root, ref, what).read_bytes())
        return {str(name): float(value) for name, value in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def of_model(latest: Figures, model: str) -> Figures:
    """One model's figures, without its name, of those that a training measured."""
    mark = f"{model}/"
    return {name.removeprefix(mark): value for name, value in latest.items() if name.startswith(mark)}


def _path(root: Path, ref: AdapterRef, what: str) -> Path:
    return root / "figures" / ref.backbone / ref.language / f"{ref.sha256[:16]}-{what}.json"
