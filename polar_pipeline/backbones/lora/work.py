"""The models of a language that is not finished: each in a folder that is whole or not there, and the checkpoint of the one in work.

A model that was damaged since it was written is forgotten, and said, so that it is trained again. What does not belong here: the
adapter that they become.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.storage.files import write_atomic, write_folder_atomic
from polar_pipeline.storage.fingerprint import canonical_json, fingerprint, folder_sha256
from polar_pipeline.storage.record import read_record

_NOTE = "model.json"

Figures = dict[str, float]


class Work:
    """One language's folder under `root`, for one configuration, posts and base (`key`). `say` hears of what was damaged."""

    def __init__(
        self, root: Path, backbone: str, language: str, key: str, say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.key = key
        self._folder = root / "work" / backbone / language / key[:16]
        self._finished = root / "finished" / backbone / language / f"{key[:16]}.json"
        self._language, self._say = language, say
        self._notes: dict[str, dict[str, Any]] = {}

    def checkpoint(self, model: str) -> Path:
        """Where a model's training goes on from."""
        return self._folder / f"{model}.checkpoint"

    def logits(self, model: str) -> Floats | None:
        """What a finished model gave the rows that it judged; None when it is not finished."""
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

    def finish(self, model: str, files: dict[str, bytes], logits: Floats, figures: Figures | None = None) -> None:
        """Keep a model, and forget its checkpoint."""

        def fill(folder: Path) -> None:
            for name, data in files.items():
                (folder / name).write_bytes(data)
            note = {"logits": logits.tolist(), "figures": figures or {}, "files": folder_sha256(folder)}
            (folder / _NOTE).write_bytes(canonical_json({**note, "note": fingerprint(note)}))

        write_folder_atomic(self._folder / model, fill)
        self.checkpoint(model).unlink(missing_ok=True)

    def ref(self) -> AdapterRef | None:
        """The language's adapter, if it was written before."""
        if not self._finished.exists():
            return None
        try:
            return read_record(self._finished, AdapterRef)
        except InputError:
            self._say(f"{self._language}: {self._finished} is damaged, so its adapter is made again")
            self.forget()
            return None

    def close(self, ref: AdapterRef) -> None:
        """Note that the language is done, and give the disk back."""
        write_atomic(self._finished, (ref.model_dump_json(indent=2) + "\n").encode())
        self.discard()

    def discard(self) -> None:
        """Drop the models."""
        self._notes.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def forget(self) -> None:
        """Not done after all: the adapter is gone or was changed."""
        self._finished.unlink(missing_ok=True)

    def _note(self, model: str) -> dict[str, Any] | None:
        """What is noted of a finished model, after its files were held against it; those that do not fit are removed."""
        folder = self._folder / model
        if model in self._notes or not folder.exists():
            return self._notes.get(model)
        try:
            note = json.loads((folder / _NOTE).read_bytes())
            whole = note.pop("note") == fingerprint(note) and note["files"] == _files_sha256(folder)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            self._say(f"{self._language}: {folder} was damaged after it was written, so this model is trained again")
            shutil.rmtree(folder)
            return None
        self._notes[model] = note
        return self._notes[model]


def _files_sha256(folder: Path) -> str:
    """Of the model's files alone, as they were before the note was written."""
    return folder_sha256(folder, frozenset({_NOTE}))
