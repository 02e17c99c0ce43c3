"""Settings, posts and fits of a size that a test can train on."""

import functools
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.backbones.lora.dataset import TokenizedRows, TrainingTask
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.task.card import load_card

CARD = load_card("polar")


def settings(**changes: object) -> LoraSettings:
    """A tiny Gemma 3 with a tiny adapter."""
    plain = {"name": "tiny", "kind": "lora", "model": "tiny:gemma3", "device": "cpu", "rank": 4, "alpha": 8}
    plain |= {"learning_rate": 5e-3, "epochs": 1, "max_length": 32, "token_budget": 128, "recompute": "never"}
    return LoraSettings.model_validate(plain | changes)


@functools.cache
def _bundled() -> pd.DataFrame:
    return read_posts(bundled_folder(), "deu", CARD)


def posts(train: int = 16, dev: int = 4, test: int = 4, folds: int = 2) -> pd.DataFrame:
    """Some German posts; those of train are dealt to folds in turn, both labels to each."""
    parts = []
    for split, count in (("train", train), ("dev", dev), ("test", test)):
        rows = _bundled()[_bundled()["split"] == split]
        halves = [rows[rows["label"] == label].head(count // 2) for label in (0, 1)]
        parts.append(pd.concat(halves) if split != "test" else rows.head(count))
    found = pd.concat(parts, ignore_index=True)
    inside = (found["split"] == "train") & (folds > 0)
    return found.assign(fold=pd.array(np.where(inside, found.index % max(folds, 1), -1), dtype="Int8"))


def fit(base: BaseModel, rows: int = 12, seed: int = 7, watched: int = 6) -> TrainingTask:
    """A task of one model: a letter decides the label."""
    random = np.random.default_rng(3)
    labels = np.arange(rows + watched) % 2
    texts = ["".join(random.choice(list("xyz"), random.integers(3, 20))) + "ab"[label] for label in labels]
    both = TokenizedRows(base.tokens(texts), labels, np.zeros(len(labels), dtype=bool))
    inside = np.arange(len(labels)) < rows
    watch = both.take(~inside) if watched else None
    return TrainingTask("deu final model", "final-seed-0", both.take(inside), np.ones(rows), watch, both, seed)


class Reads(TorchDispatchMode):
    """Counts what is read from a tensor into Python, each of which would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))
