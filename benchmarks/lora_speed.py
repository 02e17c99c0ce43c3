"""LoRA training and scoring beside the Hugging Face `Trainer` with PEFT, on rows as long as the release's posts.

Usage: POLAR_DATA_DIR=... python benchmarks/lora_speed.py [--shape tiny --shape 12b ...] [--tokens 20000] [--repeats 2]

With a GPU: the true Gemma 3 12B and 27B shapes, random weights. Without one: the tiny model, whose ratios alone mean
something. Both sides train the same LoRA on the same rows with as many rows a step; the second epoch counts, so that
nobody's start does. Ours trains two models, as a language needs: what the first leaves behind must not slow the
second down. Peers: (a) every row padded to 256 tokens, (b) to the longest of its random batch; where memory runs out
they sum a step over smaller batches. Tokens are real ones, padding not counted. No tokenizer of Gemma 3 can be had
without its licence, so a post has one token per 4 bytes of UTF-8, about right for English and one in 1.3 letters
where a letter has three bytes. The floor is 4N FLOP a token for LoRA and 2N for scoring, N without embeddings, at the
rate of matrix products in this run.
"""

import argparse
import gc
import logging
import os
import resource
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lora_memory import four_bit_memory
from lora_models import LONGEST, SHAPES, as_published, build, config_of, settings_for, weights_outside_embeddings
from lora_peer import train_peer

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.base_model import by_length, score_tokens
from polar_pipeline.backbones.lora.dataset import TokenizedRows, TrainingTask
from polar_pipeline.backbones.lora.memory import none_if_out_of_memory, should_recompute
from polar_pipeline.backbones.lora.training import train_model
from polar_pipeline.backbones.lora.tunable import AdaptedModel
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.pretrained.model_files import silence_libraries
from polar_pipeline.settings.backbones import LoraSettings

BYTES_A_TOKEN = 4


@dataclass
class Clock:
    """Wall and CPU seconds between the end of the first epoch and that of the second."""

    device: str
    marks: list[tuple[float, float]] = field(default_factory=list)

    def mark(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.marks.append((time.perf_counter(), time.process_time()))

    @property
    def seconds(self) -> np.ndarray:
        return np.array(self.marks[-1]) - np.array(self.marks[-2])


def timed(device: str, work: Callable[[], Any]) -> np.ndarray:
    """Wall and CPU seconds of `work`."""
    clock = Clock(device)
    clock.mark()
    work()
    clock.mark()
    return clock.seconds


def post_lengths() -> dict[str, np.ndarray]:
    """Tokens of each language's train posts, cut at the longest."""
    project = Project.load("cpu" if os.environ.get("POLAR_DATA_DIR") else "demo")
    found = {}
    for code in project.codes:
        texts = read_posts(project.data, code, project.card).query("split == 'train'")["text"]
        found[code] = np.array([min(1 + -(-len(text.encode()) // BYTES_A_TOKEN), LONGEST) for text in texts])
    return found


def matmul_rate(device: str) -> float:
    """FLOP a second of a large matrix product in the dtype that is trained in."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    one, other = torch.randn(2, size, size, device=device, dtype=dtype)
    for _ in range(3):
        one @ other
    spent = timed(device, lambda: [one @ other for _ in range(20)])
    return float(20 * 2 * size**3 / spent[counts(device)])


def counts(device: str) -> int:
    """Which of wall and CPU seconds tells the share of the floor: others' work on a shared CPU is not ours."""
    return 0 if device == "cuda" else 1


def make_fit(lengths: np.ndarray, title: str, seed: int) -> TrainingTask:
    """Rows of random tokens with these lengths."""
    random = np.random.default_rng(seed)
    count = len(lengths)
    rows = TokenizedRows(
        [random.integers(4, 260, length) for length in lengths], random.integers(0, 2, count), np.zeros(count, bool)
    )
    return TrainingTask(title, "final-seed-0", rows, np.ones(count), None, rows, seed)


def ours(slot: AdaptedModel, fit: TrainingTask, settings: LoraSettings) -> np.ndarray:
    """Seconds of one epoch."""
    clock = Clock(slot.base.device)
    ends = Progress(measure=lambda step, _: steps.append(step) or clock.mark())
    steps: list[int] = []
    per_epoch = len(by_length(fit.rows.lengths, settings.token_budget))
    train_model(slot, fit, settings, Path("none"), ends)
    clock.marks = [mark for step, mark in zip(steps, clock.marks, strict=True) if step % per_epoch == 0]
    return clock.seconds


def peak(device: str) -> str:
    if device == "cuda":
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB of the process"


@dataclass
class Task:
    """One shape with the rows that both sides train on."""

    shape: str
    device: str
    drawn: np.ndarray  # tokens a row
    rate: float  # FLOP a second of matrix products

    def __post_init__(self) -> None:
        self.weights, self.settings = weights_outside_embeddings(self.shape), settings_for(self.device)
        self.fit = make_fit(self.drawn, "bench", 0)
        self.batches = by_length(self.drawn, self.settings.token_budget)
        self.batch = max(round(len(self.drawn) / len(self.batches)), 1)
        self.slot = AdaptedModel(build(config_of(self.shape), self.device), self.settings)

    def told(self, seconds: np.ndarray, flop_a_weight: int) -> str:
        speed = self.drawn.sum() / seconds
        share = speed[counts(self.device)] * flop_a_weight * self.weights / self.rate
        return f"{speed[0]:,.0f} tokens/s (by CPU time {speed[1]:,.0f}), {share:.0%} of the floor"


def compare(task: Task) -> None:
    """One shape: training, scoring, then both peers."""
    drawn, device, slot, settings = task.drawn, task.device, task.slot, task.settings
    padding = sum(len(batch) * drawn[batch].max() for batch in task.batches) / drawn.sum()  # computed over real
    print(
        f"{task.shape}, N {task.weights / 1e9:.4g} billion, {len(drawn)} rows, {task.batch} a step, "
        f"padding {padding:.2f}x"
    )
    for which in ("first", "second"):
        spent = ours(slot, task.fit, settings)
        how = "recomputing" if should_recompute(slot.base, settings) else "keeping activations"
        print(f"  ours, {which} model: {task.told(spent, 4)}, {how}, peak {peak(device)}", flush=True)
    speed = drawn.sum() / spent
    score_tokens(slot.base, task.fit.rows.tokens[:64], settings.token_budget)
    scored = timed(device, lambda: score_tokens(slot.base, task.fit.rows.tokens, settings.token_budget))
    whole = 22 * 2000 * drawn.mean() / (drawn.sum() / scored)[0]
    print(f"  scoring: {task.told(scored, 2)}, 22 x 2,000 posts in {whole:,.0f} s", flush=True)
    slot.base.model = slot._peft.unload()
    as_published(slot.base)
    # a sixth of the rows tells a slow peer's rate
    some = task.fit.rows.take(np.arange(0, len(drawn), 6 if device == "cuda" else 1))
    for name, padded in (("(a) Trainer, padding to 256", True), ("(b) Trainer, random batches", False)):
        clock = Clock(device)
        note = train_peer(slot.base, some, task.batch, padded, settings, clock.mark)
        if len(clock.marks) < 2:
            print(f"  {name}{note}", flush=True)
            continue
        theirs = some.lengths.sum() / clock.seconds
        ratio = speed / theirs
        print(
            f"  {name}: {theirs[0]:,.0f} tokens/s (by CPU time {theirs[1]:,.0f}){note}; "
            f"ours {ratio[0]:.1f}x (by CPU time {ratio[1]:.1f}x)",
            flush=True,
        )


def tried(name: str, work: Callable[[], None]) -> None:
    """Do `work`; what does not fit is said, and the rest goes on."""
    try:
        if none_if_out_of_memory(lambda: (work(), True)) is None:
            print(f"{name}: memory ran out", flush=True)
    except InputError as error:
        print(f"{name}: {error}", flush=True)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--shape", action="append", choices=list(SHAPES))
    parser.add_argument("--tokens", type=int, default=80_000 if device == "cuda" else 5_000, help="of an epoch")
    parser.add_argument("--repeats", type=int, default=1 if device == "cuda" else 2)
    arguments = parser.parse_args()
    silence_libraries()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if device == "cpu":
        torch.set_num_threads(1)
        print(
            "no GPU: the tiny model on one core, whose ratios alone mean something; run this again where there is one"
        )
    else:
        torch.backends.cuda.enable_cudnn_sdp(False)
        print(torch.cuda.get_device_name())
    lengths = post_lengths()
    every = np.concatenate(list(lengths.values()))
    rate = matmul_rate(device)
    print(
        f"{len(every)} posts of {len(lengths)} languages, {every.mean():.1f} tokens on average; "
        f"{rate / 1e12:.3g} TFLOP/s of matrix products"
    )
    for _ in range(arguments.repeats):
        for shape in arguments.shape or (["12b", "27b"] if device == "cuda" else ["tiny"]):
            drawn = np.random.default_rng(0).choice(every, max(int(arguments.tokens / every.mean()), 1))
            tried(shape, lambda shape=shape, drawn=drawn: compare(Task(shape, device, drawn, rate)))
    tried("27b in 4-bit", lambda: four_bit_memory(device))


if __name__ == "__main__":
    main()
