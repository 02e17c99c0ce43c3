"""Learning rates of adapters and of full fine-tuning, over one small pretrained model and the posts of one language.

Usage: POLAR_DATA_DIR=... python benchmarks/lora_learning_rates.py MODEL [--language pan] [--posts 500] [--epochs 3]
       [--lora 3e-4 --lora 1e-3 ...] [--full 3e-5 --full 1e-4 ...]

MODEL is a folder or a name on the hub. Each rate trains one model on as many posts of train; the same 400 others are
scored, by AUC, which needs no threshold, and by macro-F1 at 0.5. "LoRA Without Regret" (Schulman et al. 2025) finds the
best rate of adapters about ten times as high as that of full fine-tuning.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.base_model import score_tokens
from polar_pipeline.backbones.lora.dataset import TokenizedRows, TrainingTask
from polar_pipeline.backbones.lora.loading import ModelCache
from polar_pipeline.backbones.lora.training import train_model
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.metrics.scores import auc, macro_f1
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.task.card import load_card

HELD_OUT = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=os.environ.get("POLAR_TEST_E5"))
    parser.add_argument("--language", default="pan")
    parser.add_argument("--posts", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--lora", type=float, action="append", default=[])
    parser.add_argument("--full", type=float, action="append", default=[])
    given = parser.parse_args()
    if not given.model or "POLAR_DATA_DIR" not in os.environ:
        sys.exit("lora_learning_rates: give the folder of a model, and set POLAR_DATA_DIR to the official release.")
    every = read_posts(Path(os.environ["POLAR_DATA_DIR"]), given.language, load_card("polar"))
    mixed = every[every["split"] == "train"].sample(given.posts + HELD_OUT, random_state=5)
    labels = mixed["label"].to_numpy(dtype=np.int64)
    print("| tuning | learning rate | AUC | macro-F1 | last loss | seconds |\n|---|---|---|---|---|---|", flush=True)
    models = ModelCache()
    with TemporaryDirectory() as folder:
        for tuning, rate in [("lora", rate) for rate in given.lora] + [("full", rate) for rate in given.full]:
            plain = {"name": tuning, "kind": "lora", "model": given.model, "tuning": tuning, "learning_rate": rate}
            plain |= {"epochs": given.epochs, "rank": given.rank, "alpha": 2 * given.rank, "max_length": 64}
            plain |= {"threads": os.cpu_count(), "token_budget": 1024, "recompute": "never", "checkpoint_seconds": 1e9}
            settings = LoraSettings.model_validate(plain)
            tunable = models.get(settings, Path(folder))
            tokens = tunable.base.tokens(mixed["text"].tolist())
            rows = TokenizedRows(tokens, labels, np.zeros(len(labels), dtype=bool))
            inside = np.arange(len(labels)) < given.posts
            weights, judged = np.ones(given.posts), rows.take(~inside)
            task = TrainingTask("model", "model", rows.take(inside), weights, None, judged, random_seed=1)
            started, progress = time.perf_counter(), Progress()
            train_model(tunable, task, settings, Path(folder) / "checkpoint", progress)
            seconds = time.perf_counter() - started
            logits = score_tokens(tunable.base, judged.tokens, settings.token_budget)
            f1 = macro_f1(judged.labels, (logits > 0).astype(int))
            figures = f"{auc(judged.labels, logits):.3f} | {f1:.3f} | {progress.latest['model/loss']:.3f}"
            print(f"| {tuning} | {rate:g} | {figures} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
