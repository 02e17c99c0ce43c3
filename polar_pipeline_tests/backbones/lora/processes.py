"""What runs in processes of its own, to be killed there, or to show that a result does not depend on who computes it.

Processes are forked from a server that has imported the heavy libraries, because importing them takes seconds.
"""

import hashlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft  # noqa: F401
import torch  # noqa: F401
import transformers  # noqa: F401

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora import checkpoints, final_models, training
from polar_pipeline.backbones.lora.backbone import LoraBackbone
from polar_pipeline.backbones.lora.loading import ModelCache, load_base
from polar_pipeline.backbones.lora.tunable import AdaptedModel
from polar_pipeline.storage import files
from polar_pipeline_tests.backbones.lora.examples import CARD, fit, posts, settings

SHAPES = ("gemma3", "gemma3_multimodal", "qwen3", "xlm_roberta")


def run(target: Callable[..., None], *arguments: Any) -> int:
    """Run `target` in a process of its own. Returns its exit code, negative where a signal ended it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=target, args=arguments)
    process.start()
    process.join(120)
    assert process.exitcode is not None, "still running"
    return process.exitcode


def die() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def train_files(root: Path, out: Path, moment: str, changes: dict[str, Any]) -> None:
    """Train one adapter and write its files to `out`; die at `moment`:

    `step N`, `checkpoint N`, `writing N`, or never.
    """
    kind, _, number = moment.partition(" ")
    kill_at(kind, int(number or 0))
    chosen = settings(checkpoint_seconds=0, **({"token_budget": 64, "epochs": 2} | changes))
    slot = AdaptedModel(load_base(chosen, root / "bases"), chosen)
    training.train_model(slot, fit(slot.base), chosen, root / "checkpoint", Progress())
    out.mkdir()
    for name, content in slot.files().items():
        (out / name).write_bytes(content)


def kill_at(kind: str, number: int) -> None:
    """Replace a function of training by one that dies in its call `number`, before, while or after it does its work."""
    calls = 0

    def counted() -> bool:
        nonlocal calls
        calls += 1
        return calls == number

    if kind == "step":
        step = training.Optimizer.step
        training.Optimizer.step = lambda self, at: die() if counted() else step(self, at)
    elif kind == "checkpoint":
        write = training.write_checkpoint

        def after(*arguments: Any) -> None:
            write(*arguments)
            if counted():
                die()

        training.write_checkpoint = after
    elif kind == "writing":
        flush = files._flush
        files._flush = lambda file: die() if counted() else flush(file)
    elif kind == "finished":
        finish = checkpoints.ModelStore.save_model

        def after_finish(self: checkpoints.ModelStore, *arguments: Any) -> None:
            finish(self, *arguments)
            if counted():
                die()

        checkpoints.ModelStore.save_model = after_finish
    elif kind == "closing":
        checkpoints.ModelStore.set_finished = lambda self, ref: die()
    elif kind == "scored":
        final_models.write_checked = lambda *arguments: die()


def train_language(root: Path, out: Path, moment: str, changes: dict[str, Any] | None = None) -> None:
    """Train a whole language with `changes` of the settings, write its reference to `out`; die at `moment`."""
    kind, _, number = moment.partition(" ")
    kill_at(kind, int(number or 0))
    said: list[str] = []
    model = LoraBackbone(settings(checkpoint_seconds=0, **(changes or {})), 1, 2, CARD, root, ModelCache())
    ref = model.train("deu", posts(), Progress(said.append))
    out.write_text(ref.model_dump_json() + "\n" + "\n".join(said))


def digests(root: Path) -> dict[str, str]:
    """Of everything that should be the same bytes in every process: checkpoints, adapters, a reference."""
    found = {}
    for shape in SHAPES:
        chosen = settings(model=f"tiny:{shape}")
        slot = AdaptedModel(load_base(chosen, root / "bases"), chosen)
        found[f"{shape} weights"] = _digest(next((root / "bases").glob(f"tiny-{shape}-?-0")) / "model.safetensors")
        slot.fresh(5)
        found |= {f"{shape} fresh {name}": _bytes(content) for name, content in slot.files().items()}
        training.train_model(slot, fit(slot.base), chosen, root / f"{shape}.checkpoint", Progress())
        found |= {f"{shape} trained {name}": _bytes(content) for name, content in slot.files().items()}
    model = LoraBackbone(settings(), 1, 2, CARD, root, ModelCache())
    found["ref"] = model.train("deu", posts(), Progress()).sha256
    return found


def _digest(file: Path) -> str:
    return _bytes(file.read_bytes())


def _bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
