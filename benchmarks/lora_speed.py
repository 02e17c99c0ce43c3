"""LoRA training and scoring beside the Hugging Face `Trainer` with PEFT, on rows as long as the release's posts, in one run.

Usage: POLAR_DATA_DIR=... python benchmarks/lora_speed.py [--shape tiny --shape 12b ...] [--tokens 20000] [--repeats 2]

With a GPU: the true Gemma 3 12B and 27B shapes, random weights. Without one: the tiny model, whose ratios alone mean something. Both
sides train the same LoRA on the same rows with as many rows a step; the second epoch counts, so that nobody's start does. Peers: (a) every
row padded to 256 tokens, (b) to the longest of its random batch. Tokens are real ones, padding not counted. No tokenizer of Gemma 3 can
be had without its licence, so a post has one token per 4 bytes of UTF-8, about right for English and one in 1.3 letters where a letter has
three bytes. The floor is 4N FLOP a token for LoRA and 2N for scoring, N without embeddings, at the rate of matrix products in this run.
"""

import argparse
import logging
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.adapter import Slot
from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.backbones.lora.batches import by_length, padded_share
from polar_pipeline.backbones.lora.joint import train_adapters
from polar_pipeline.backbones.lora.loading import quiet
from polar_pipeline.backbones.lora.memory import activation_bytes, weight_bytes
from polar_pipeline.backbones.lora.rows import Fit, Rows
from polar_pipeline.backbones.lora.scoring import score_tokens
from polar_pipeline.backbones.lora.tiny import tokenizer
from polar_pipeline.backbones.lora.training import train_adapter
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.defs.project import Project
from polar_pipeline.task.backbones import LoraSettings

LONGEST, BYTES_A_TOKEN, MEMORY = 256, 4, 24e9
TINY = {"vocab_size": 260, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6, "head_dim": 16}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 32}
LARGE = {"vocab_size": 262208, "sliding_window": 1024}
SHAPES: dict[str, dict[str, Any]] = {  # text towers of google/gemma-3-12b-pt and google/gemma-3-27b-pt
    "tiny": TINY,
    "12b": LARGE | {"hidden_size": 3840, "intermediate_size": 15360, "num_hidden_layers": 48, "num_attention_heads": 16}
    | {"num_key_value_heads": 8, "head_dim": 256, "query_pre_attn_scalar": 256},
    "27b": LARGE | {"hidden_size": 5376, "intermediate_size": 21504, "num_hidden_layers": 62, "num_attention_heads": 32}
    | {"num_key_value_heads": 16, "head_dim": 128, "query_pre_attn_scalar": 168},
}  # fmt: skip
KNOWN_BILLIONS = {"12b": 10.76, "27b": 25.6}


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
    for code in project.profile.codes:
        texts = read_posts(project.data, code, project.card).query("split == 'train'")["text"]
        found[code] = np.array([min(1 + -(-len(text.encode()) // BYTES_A_TOKEN), LONGEST) for text in texts])
    return found


def model_class() -> Any:
    from transformers import Gemma3TextForSequenceClassification

    return Gemma3TextForSequenceClassification


def config_of(shape: str, **changed: Any) -> Any:
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(**(SHAPES[shape] | {"num_labels": 1, "pad_token_id": 0, "use_cache": False} | changed))


def build(config: Any, device: str) -> BaseModel:
    """A model with random weights, made where it will be."""
    dtype = torch.bfloat16 if device == "cuda" or config.hidden_size > 1000 else torch.float32
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = model_class()(config).eval().requires_grad_(False)
    torch.set_default_dtype(torch.float32)
    return BaseModel(model, tokenizer(), "score", "random", "random", device, dtype, LONGEST)


def weights_outside_embeddings(shape: str) -> int:
    """N of the floor; the true shapes are held against the published counts."""
    with torch.device("meta"):
        model = model_class()(config_of(shape))
    count = sum(weight.numel() for name, weight in model.named_parameters() if ".layers." in name)
    known = KNOWN_BILLIONS.get(shape)
    if known and abs(count / 1e9 / known - 1) > 0.005:
        raise SystemExit(f"{shape} has {count:,} weights outside embeddings instead of {known} billion")
    return count


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


def make_fit(lengths: np.ndarray, title: str, seed: int) -> Fit:
    """Rows of random tokens with these lengths."""
    random = np.random.default_rng(seed)
    count = len(lengths)
    rows = Rows(
        [random.integers(4, 260, length) for length in lengths], random.integers(0, 2, count), np.zeros(count, bool)
    )
    return Fit(title, "final-seed-0", rows, np.ones(count), None, seed)


def settings_for(device: str, **changed: Any) -> LoraSettings:
    plain = {"name": "bench", "kind": "lora", "model": "random", "device": device, "max_length": LONGEST, "epochs": 2}
    plain |= {"rank": 16, "alpha": 32, "token_budget": 2048 if device == "cuda" else 512, "checkpoint_seconds": 1e9}
    return LoraSettings(**(plain | changed))


def ours(slot: Slot, fit: Fit, settings: LoraSettings) -> np.ndarray:
    """Seconds of one epoch."""
    clock = Clock(slot.base.device)
    ends = Progress(measure=lambda step, _: steps.append(step) or clock.mark())
    steps: list[int] = []
    per_epoch = len(by_length(fit.rows.lengths, settings.token_budget))
    train_adapter(slot, fit, settings, Path("none"), ends)
    clock.marks = [mark for step, mark in zip(steps, clock.marks, strict=True) if step % per_epoch == 0]
    return clock.seconds


def peer(base: BaseModel, rows: Rows, batch: int, padded: bool, settings: LoraSettings, recompute: bool) -> np.ndarray:
    """Seconds of one epoch of Trainer and PEFT, random order."""
    from peft import LoraConfig, get_peft_model
    from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    clock = Clock(base.device)

    class Marks(TrainerCallback):
        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            clock.mark()

    def collate(some: list[int]) -> dict[str, torch.Tensor]:
        longest = LONGEST if padded else max(len(rows.tokens[row]) for row in some)
        ids = torch.zeros(len(some), longest, dtype=torch.long)
        for place, row in enumerate(some):
            ids[place, : len(rows.tokens[row])] = torch.from_numpy(rows.tokens[row])
        labels = torch.from_numpy(rows.labels[some]).float()
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}

    lora = LoraConfig(task_type="SEQ_CLS", r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear")
    model = get_peft_model(base.model, lora)
    cuda, half = base.device == "cuda", base.dtype == torch.bfloat16
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(), num_train_epochs=2, per_device_train_batch_size=batch, use_cpu=not cuda, bf16=half,
        learning_rate=settings.learning_rate, optim="adamw_torch_fused", save_strategy="no", logging_strategy="no",
        report_to=[], disable_tqdm=True, remove_unused_columns=False, gradient_checkpointing=recompute,
    )  # fmt: skip
    try:
        places: Any = list(range(len(rows.tokens)))
        trainer = Trainer(model, arguments, data_collator=collate, train_dataset=places, callbacks=[Marks()])
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    finally:
        base.model = model.unload()
        base.model.gradient_checkpointing_disable()
    return clock.seconds


def peer_that_fits(*arguments: Any) -> tuple[np.ndarray, str]:
    """The peer without recomputing where memory allows, as its user would have it."""
    try:
        return peer(*arguments, False), ""
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return peer(*arguments, True), ", recomputing because memory ran out"


def peak(device: str) -> str:
    if device == "cuda":
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB of the process"


def compare(shape: str, device: str, lengths: np.ndarray, wanted: int, rate: float) -> None:
    """One shape: training beside both peers, then scoring."""
    count, settings = weights_outside_embeddings(shape), settings_for(device)
    slot = Slot(build(config_of(shape), device), settings)
    drawn = np.random.default_rng(0).choice(lengths, max(int(wanted / lengths.mean()), 1))
    fit = make_fit(drawn, "bench", 0)
    batches = by_length(drawn, settings.token_budget)
    batch = max(round(len(drawn) / len(batches)), 1)
    spent = ours(slot, fit, settings)
    speed = drawn.sum() / spent
    print(
        f"{shape}, N {count / 1e9:.4g} billion, {len(drawn)} rows, {batch} a step, padding {padded_share(drawn, batches):.2f}x"
    )
    print(
        f"  ours: {speed[0]:,.0f} tokens/s (by CPU time {speed[1]:,.0f}), {speed[counts(device)] * 4 * count / rate:.0%} of the floor, peak {peak(device)}",
        flush=True,
    )
    slot.empty()
    share = 6 if device == "cuda" else 1  # a sixth of the rows tells a slow peer's rate
    some = fit.rows.take(np.arange(0, len(drawn), share))
    for name, padded in (("(a) Trainer, padding to 256", True), ("(b) Trainer, random batches", False)):
        spent, note = peer_that_fits(slot.base, some, batch, padded, settings)
        theirs = some.lengths.sum() / spent
        print(f"  {name}: {theirs[0]:,.0f} tokens/s (by CPU time {theirs[1]:,.0f}){note}; ours {speed[0] / theirs[0]:.1f}x (by CPU time {speed[1] / theirs[1]:.1f}x)", flush=True)  # fmt: skip
    slot.fresh(0)
    score_tokens(slot.base, fit.rows.tokens[:64], settings.token_budget)
    spent = timed(device, lambda: score_tokens(slot.base, fit.rows.tokens, settings.token_budget))
    speed = drawn.sum() / spent
    print(f"  scoring: {speed[0]:,.0f} tokens/s (by CPU time {speed[1]:,.0f}), {speed[counts(device)] * 2 * count / rate:.0%} of the floor, "
          f"22 x 2,000 posts in {22 * 2000 * lengths.mean() / speed[0]:,.0f} s", flush=True)  # fmt: skip


def compare_joint(device: str, lengths: dict[str, np.ndarray], budget: int, languages: int = 8) -> None:
    """Adapters of several languages one after the other and at once, from fresh adapters to files."""
    settings = settings_for(device, token_budget=max(budget, LONGEST // 4), max_length=LONGEST // 4, rank=4, alpha=8)
    slot = Slot(build(config_of("tiny"), device), settings)
    codes = sorted(lengths, key=lambda code: float(lengths[code].mean()))
    fits = [
        make_fit(np.minimum(np.random.default_rng(place).choice(lengths[code], 50), LONGEST // 4), code, place)
        for place, code in enumerate(codes[place * len(codes) // languages] for place in range(languages))
    ]

    def one_by_one() -> None:
        for fit in fits:
            train_adapter(slot, fit, settings, Path("none"), Progress())
            slot.files()

    train_adapters(slot, fits[:1], settings, Path("none"), Progress())
    alone = timed(device, one_by_one)
    joint = timed(device, lambda: train_adapters(slot, fits, settings, Path("none"), Progress()))
    print(f"joint, tiny, {languages} languages, {settings.token_budget} tokens a batch: {alone[0]:.2f} s one by one, {joint[0]:.2f} s at once, "
          f"ratio {alone[0] / joint[0]:.2f} (by CPU time {alone[1] / joint[1]:.2f})", flush=True)  # fmt: skip


def four_bit_memory(device: str) -> None:
    """27B in 4-bit: weights and adapters counted, activations measured on one and two layers of true width."""
    settings = settings_for(device, token_budget=1024)
    config = config_of("27b")
    weights = weight_bytes(model_class(), config, True, torch.bfloat16)
    found = []
    for layers in (1, 2):
        cut = Slot(build(config_of("27b", num_hidden_layers=layers, vocab_size=1024), device), settings)
        trained = sum(parameter.numel() for parameter in cut.fresh(0).values())
        found.append((activation_bytes(cut.base), trained))
        del cut
    layer, adapter = np.array(found[1]) - np.array(found[0])
    depth = config.num_hidden_layers
    adapters = depth * adapter * 16  # float32: the weight, its gradient and two moments
    copy = 2 * config.hidden_size * config.intermediate_size  # the largest layer, unpacked
    kept, inputs = depth * layer, depth * 2 * config.hidden_size + layer
    print(
        f"27b in 4-bit: weights {weights / 1e9:.1f} GB, adapters {adapters / 1e9:.1f} GB, activations {kept / 1e6:.1f} MB a token, {inputs / 1e6:.2f} MB recomputing"
    )
    for name, each in (("keeping them", kept), ("recomputing", inputs)):
        room = MEMORY - weights - adapters - copy
        need = weights + adapters + copy + each * settings.token_budget
        print(
            f"  {name}: {need / 1e9:.1f} GB at {settings.token_budget} tokens a batch; 24 GB hold {room / each:,.0f} tokens"
        )


def main() -> None:
    """Print all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--shape", action="append", choices=list(SHAPES))
    parser.add_argument("--tokens", type=int, default=120_000 if device == "cuda" else 5_000, help="of an epoch")
    parser.add_argument("--repeats", type=int, default=1 if device == "cuda" else 2)
    arguments = parser.parse_args()
    quiet()
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
        f"{len(every)} posts of {len(lengths)} languages, {every.mean():.1f} tokens on average; {rate / 1e12:.3g} TFLOP/s of matrix products"
    )
    for _ in range(arguments.repeats):
        for shape in arguments.shape or (["12b", "27b"] if device == "cuda" else ["tiny"]):
            compare(shape, device, every, arguments.tokens, rate)
            if device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
        for budget in (128, 512):
            compare_joint(device, lengths, budget)
    four_bit_memory(device)


if __name__ == "__main__":
    main()
