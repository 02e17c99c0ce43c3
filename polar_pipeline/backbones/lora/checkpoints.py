"""What is kept beside adapters while they are trained and scored, and which of it nobody needs.

Each file is whole or not there, and carries its own sha256. A damaged one is reported and made again.
"""

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polar_pipeline.backbones.artifacts import META, NAME_DIGITS, AdapterRef, adapter_folders
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.storage.files import write_atomic, write_folder_atomic
from polar_pipeline.storage.fingerprint import canonical_json, fingerprint, folder_sha256
from polar_pipeline.storage.record import read_record
from polar_pipeline.storage.usage import files_below

if TYPE_CHECKING:
    from torch import Tensor

WORK, _FINISHED, _FIGURES, _SCORED = "work", "finished", "figures", "scored"  # folders below the one of adapters
_NOTE = "model.json"
_FACTS = "facts"
_DIGEST = 32  # bytes of a sha256
_MONTH = 30 * 86400.0  # seconds in which an interrupted training is expected to be continued

Figures = dict[str, float]


def write_checked(path: Path, content: bytes) -> None:
    """Write `content`, followed by its sha256."""
    write_atomic(path, content + hashlib.sha256(content).digest())


def read_checked(path: Path) -> bytes:
    """What `write_checked` wrote. Raises InputError if a byte of it was changed."""
    found = path.read_bytes()
    content, digest = found[:-_DIGEST], found[-_DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        raise InputError(f"{path} is damaged (its sha256 differs): remove it, it is then made again.")
    return content


def write_checkpoint(path: Path, tensors: "dict[str, Tensor]", facts: dict[str, Any]) -> None:
    """Write everything that the next step of a training depends on: tensors, and facts that JSON can say."""
    import torch
    from safetensors.torch import save

    flat = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    flat[_FACTS] = torch.frombuffer(bytearray(canonical_json(facts)), dtype=torch.uint8)
    write_checked(path, save(flat))


def read_checkpoint(path: Path) -> "tuple[dict[str, Tensor], dict[str, Any]] | None":
    """What was written, or None if there is no file. Raises InputError if the file is damaged."""
    from safetensors.torch import load

    if not path.exists():
        return None
    tensors = load(read_checked(path))
    return tensors, json.loads(tensors.pop(_FACTS).numpy().tobytes())


class ModelStore:
    """The models of one language for one configuration, posts and base, which `key` identifies.

    `warn` is called with a line for each damaged file; its model counts as not finished.
    """

    def __init__(
        self, root: Path, backbone: str, language: str, key: str, warn: Callable[[str], None] = lambda _: None
    ) -> None:
        self._folder = root / WORK / backbone / language / key[:16]
        self._finished = root / _FINISHED / backbone / language / f"{key[:16]}.json"
        self._language, self._warn = language, warn
        self._notes: dict[str, dict[str, Any]] = {}

    def checkpoint(self, model: str) -> Path:
        """Where a model's training goes on from."""
        return self._folder / f"{model}.checkpoint"

    def logits(self, model: str) -> Floats | None:
        """The logits that a finished model gave the rows that it judged, or None if it is not finished."""
        note = self._note(model)
        return None if note is None else np.array(note["logits"], dtype=np.float64)

    def figures(self, model: str) -> Figures:
        """What was measured in a finished model's training."""
        note = self._note(model)
        return {} if note is None else dict(note["figures"])

    def files(self, model: str) -> dict[str, bytes]:
        """A finished model's files."""
        folder = self._folder / model
        return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.name != _NOTE}

    def save_model(self, model: str, files: dict[str, bytes], logits: Floats, figures: Figures | None = None) -> None:
        """Keep a finished model, and remove its checkpoint."""

        def fill(folder: Path) -> None:
            for name, data in files.items():
                (folder / name).write_bytes(data)
            note = {"logits": logits.tolist(), "figures": figures or {}, "files": folder_sha256(folder)}
            (folder / _NOTE).write_bytes(canonical_json({**note, "note": fingerprint(note)}))

        write_folder_atomic(self._folder / model, fill)
        self.checkpoint(model).unlink(missing_ok=True)

    def discard_models(self) -> None:
        """Remove the models and checkpoints."""
        self._notes.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def finished(self) -> AdapterRef | None:
        """The language's adapter, if it was finished before."""
        if not self._finished.exists():
            return None
        try:
            return read_record(self._finished, AdapterRef)
        except InputError:
            self._warn(f"{self._language}: {self._finished} is damaged, so its adapter is made again")
            self.forget_finished()
            return None

    def set_finished(self, ref: AdapterRef) -> None:
        """Note that the language is done, and remove its models."""
        write_atomic(self._finished, (ref.model_dump_json(indent=2) + "\n").encode())
        self.discard_models()

    def forget_finished(self) -> None:
        """Count the language as not done."""
        self._finished.unlink(missing_ok=True)

    def _note(self, model: str) -> dict[str, Any] | None:
        """The note of a finished model whose files are as they were written; damaged models are removed."""
        folder = self._folder / model
        if model in self._notes or not folder.exists():
            return self._notes.get(model)
        try:
            note = json.loads((folder / _NOTE).read_bytes())
            files = folder_sha256(folder, frozenset({_NOTE}))
            intact = note.pop("note") == fingerprint(note) and note["files"] == files
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            intact = False
        if not intact:
            self._warn(f"{self._language}: {folder} was damaged after it was written, so this model is trained again")
            shutil.rmtree(folder)
            return None
        self._notes[model] = note
        return self._notes[model]


def kept_logits(root: Path, ref: AdapterRef, key: str) -> Path:
    """Where logits of an adapter are kept, so that they are computed once. Their figures have the same `key`."""
    return root / _SCORED / ref.backbone / ref.language / f"{key}.logits"


def save_figures(root: Path, ref: AdapterRef, figures: Figures, what: str = "training") -> None:
    """Keep measurements beside the adapter, whose bytes should not depend on them, in place of earlier ones."""
    write_atomic(_figures_path(root, ref, what), canonical_json(figures))


def load_figures(root: Path, ref: AdapterRef, what: str = "training") -> Figures:
    """What was measured; empty if nothing was, or if the file is damaged, because nothing is decided by it."""
    try:
        found = json.loads(_figures_path(root, ref, what).read_bytes())
        return {str(name): float(value) for name, value in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _figures_path(root: Path, ref: AdapterRef, what: str) -> Path:
    return root / _FIGURES / ref.backbone / ref.language / f"{ref.sha256[:16]}-{what}.json"


def unused_model_files(root: Path, named: str) -> Iterator[Path]:
    """Files and folders below `root` that can go. `named`: everything in which outputs that are kept name adapters.

    An adapter that is named stays, and so do those that it names itself, as a language's share of a pooled one does.
    Of interrupted trainings, the newest of each backbone and language stays, and whatever changed in the last month.
    Tiny bases and the hashes of models, which every training reads, all stay.
    """
    folders, kept = adapter_folders(root), set[str]()
    while more := [one for one in folders if one.name not in kept and one.name in named]:
        kept |= {one.name for one in more}
        named += "".join((one / META).read_text(encoding="utf-8", errors="replace") for one in more)
    yield from (folder for folder in folders if folder.name not in kept)
    for reference in root.glob(f"{_FINISHED}/*/*/*.json"):
        text = reference.read_text(encoding="utf-8", errors="replace")
        if kept.isdisjoint(re.findall(rf"\b[0-9a-f]{{{NAME_DIGITS}}}\b", text)):
            yield reference
    scored = set()
    for figures in root.glob(f"{_FIGURES}/*/*/*.json"):
        adapter, _, what = figures.stem.partition("-")
        if adapter in kept:
            scored.add(what)
        else:
            yield figures
    yield from (logits for logits in root.glob(f"{_SCORED}/*/*/*.logits") if logits.stem not in scored)
    for language in root.glob(f"{WORK}/*/*"):
        by_age = sorted(language.iterdir(), key=_last_change)
        yield from (path for path in by_age[:-1] if _last_change(path) < time.time() - _MONTH)


def _last_change(path: Path) -> float:
    return max(file.lstat().st_mtime for file in (path, *files_below(path)))
