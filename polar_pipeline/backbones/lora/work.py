"""The models of a language that is not finished: each in a folder that is whole or not there, and the checkpoint of the one in work.

What does not belong here: the adapter that they become.
"""

import json
import shutil
from pathlib import Path

import numpy as np

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.storage.files import write_atomic, write_folder_atomic
from polar_pipeline.storage.record import read_record

_LOGITS = "logits.json"


class Work:
    """One language's folder under `root`, for one configuration, posts and base (`key`)."""

    def __init__(self, root: Path, backbone: str, language: str, key: str) -> None:
        self.key = key
        self._folder = root / "work" / backbone / language / key[:16]
        self._finished = root / "finished" / backbone / language / f"{key[:16]}.json"

    def checkpoint(self, model: str) -> Path:
        """Where a model's training goes on from."""
        return self._folder / f"{model}.checkpoint"

    def logits(self, model: str) -> Floats | None:
        """What a finished model gave the rows that it judged; None when it is not finished."""
        path = self._folder / model / _LOGITS
        return np.array(json.loads(path.read_text()), dtype=np.float64) if path.exists() else None

    def files(self, model: str) -> dict[str, bytes]:
        """A finished model's files."""
        folder = self._folder / model
        return {file.name: file.read_bytes() for file in sorted(folder.iterdir()) if file.name != _LOGITS}

    def finish(self, model: str, files: dict[str, bytes], logits: Floats) -> None:
        """Keep a model, and forget its checkpoint."""
        content = {**files, _LOGITS: json.dumps(logits.tolist()).encode()}

        def fill(folder: Path) -> None:
            for name, data in content.items():
                (folder / name).write_bytes(data)

        write_folder_atomic(self._folder / model, fill)
        self.checkpoint(model).unlink(missing_ok=True)

    def ref(self) -> AdapterRef | None:
        """The language's adapter, if it was written before."""
        return read_record(self._finished, AdapterRef) if self._finished.exists() else None

    def close(self, ref: AdapterRef) -> None:
        """Note that the language is done, and give the disk back."""
        write_atomic(self._finished, (ref.model_dump_json(indent=2) + "\n").encode())
        shutil.rmtree(self._folder, ignore_errors=True)

    def forget(self) -> None:
        """Not done after all: the adapter is gone or was changed."""
        self._finished.unlink(missing_ok=True)
