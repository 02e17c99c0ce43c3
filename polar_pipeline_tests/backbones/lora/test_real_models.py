"""Real pretrained models on real posts of one language: they learn, and others read what was saved.

    POLAR_DATA_DIR=... POLAR_TEST_GEMMA=FOLDER POLAR_TEST_E5=FOLDER pytest -s -n0 -k real_models

FOLDER holds Gemma 3 (270M is enough) and multilingual-e5-small. Each takes minutes on two cores.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import peft
import pytest
import torch
import transformers

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.backbone import LoraBackbone
from polar_pipeline.backbones.lora.base_model import BaseModel, score_tokens
from polar_pipeline.backbones.lora.loading import ModelCache
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.metrics.scores import auc, macro_f1
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline_tests.backbones.lora.examples import CARD
from polar_pipeline_tests.conftest import DATA_DIR, real_data

pytestmark = [pytest.mark.slow, real_data]

LANGUAGE = "pan"  # short posts, both labels alike often
WATCHED = 20  # posts of dev, which each epoch looks at
MARGIN = 0.05


def given(name: str) -> str:
    """The folder that an environment variable names; without one, the test is skipped."""
    return os.environ.get(name) or pytest.skip(f"set {name} to the folder of a pretrained model")


def some_posts(train: int, held_out: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Posts of train to fit on, some of dev, and others of train as if they were test's; and these with labels."""
    every = read_posts(Path(str(DATA_DIR)), LANGUAGE, CARD)
    mixed = every[every["split"] == "train"].sample(train + held_out, random_state=5)
    fitted, judged = mixed.head(train), mixed.tail(held_out)
    watched = every[every["split"] == "dev"].head(WATCHED)
    table = pd.concat([fitted, watched, judged.assign(split="test", label=pd.NA)], ignore_index=True)
    return table.assign(fold=pd.array([-1] * len(table), dtype="Int8")), judged


class Run:
    """One training, and the held-out posts scored by the trained and by the untrained model."""

    def __init__(self, root: Path, posts: int, held_out: int, **settings: Any) -> None:
        plain = {"kind": "lora", "device": "cpu", "threads": os.cpu_count(), "max_length": 64, "recompute": "never"}
        self.settings = LoraSettings.model_validate(plain | {"checkpoint_seconds": 1e6} | settings)
        self.root, self.models, started = root, ModelCache(), time.perf_counter()
        self.backbone = LoraBackbone(self.settings, 1, 0, CARD, root, self.models)
        table, self.judged = some_posts(posts, held_out)
        tunable = self.models.get(self.settings, root)
        tunable.fresh(1)
        untrained = score_tokens(tunable.base, tunable.base.tokens(self.texts), self.settings.token_budget)
        self.progress = Progress(lambda text: print(f"  {text}"))
        self.ref: AdapterRef = self.backbone.train(LANGUAGE, table, self.progress)
        scores = self.backbone.score(LANGUAGE, self.ref, table)
        self.logits = scores.loc[scores["split"] == "test", "logit"].to_numpy()
        labels = self.judged["label"].to_numpy(dtype=int)
        self.auc, self.macro_f1 = auc(labels, self.logits), macro_f1(labels, (self.logits > 0).astype(int))
        self.untrained_auc = auc(labels, untrained)
        print(
            f"{self.settings.name}, {LANGUAGE}, {posts} posts, {self.settings.epochs} epochs, learning rate "
            f"{self.settings.learning_rate:g}: AUC {self.auc:.3f}, macro-F1 {self.macro_f1:.3f} on {held_out} posts, "
            f"untrained AUC {self.untrained_auc:.3f}; {time.perf_counter() - started:.0f} s"
        )

    @property
    def texts(self) -> list[str]:
        """The held-out posts."""
        return self.judged["text"].tolist()

    def check(self) -> None:
        """It ranks the held-out posts better than chance and than its untrained head, whichever way that points."""
        assert self.auc > 0.5 + 2 * MARGIN and self.macro_f1 > 0.5 + MARGIN
        assert self.auc > max(self.untrained_auc, 1 - self.untrained_auc) + MARGIN
        # new texts, which are scored by what was read back from disk, get what they got
        again = self.backbone.logits(LANGUAGE, self.ref, self.texts[:8], (0,))
        np.testing.assert_allclose(again, self.logits[:8], atol=1e-3)

    def same_elsewhere(self, model: Any) -> None:
        """Whether a model that transformers or PEFT loaded gives the same logits, post by post."""
        base: BaseModel = self.models.get(self.settings, self.root).base
        with torch.inference_mode():
            rows = [torch.from_numpy(row[None]) for row in base.tokens(self.texts[:8])]
            found = [float(model.eval()(input_ids=row, attention_mask=torch.ones_like(row)).logits) for row in rows]
        np.testing.assert_allclose(found, self.logits[:8], atol=1e-3)

    @property
    def saved(self) -> Path:
        """The files of the final model."""
        return self.root / self.ref.path / "final-seed-0"


def test_gemma_learns_with_lora_and_plain_peft_reads_it(tmp_path: Path) -> None:
    folder = given("POLAR_TEST_GEMMA")
    run = Run(
        tmp_path,
        400,
        200,
        name="gemma",
        model=folder,
        learning_rate=5e-4,
        epochs=2,
        token_budget=512,
        rank=16,
        alpha=32,
    )
    run.check()
    kind = transformers.Gemma3TextForSequenceClassification
    base = kind.from_pretrained(folder, num_labels=1, dtype=torch.float32)
    run.same_elsewhere(peft.PeftModel.from_pretrained(base, run.saved))


def test_e5_learns_fine_tuned_whole_and_transformers_reads_it(tmp_path: Path) -> None:
    """A BERT without a pooler, whose classification head begins with two random layers."""
    folder = given("POLAR_TEST_E5")
    run = Run(
        tmp_path, 600, 300, name="e5", model=folder, tuning="full", learning_rate=1e-4, epochs=4, token_budget=1024
    )
    run.check()
    run.same_elsewhere(transformers.AutoModelForSequenceClassification.from_pretrained(run.saved, num_labels=1))
