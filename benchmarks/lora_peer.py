"""The peer of `lora_speed.py`: Hugging Face's `Trainer` with PEFT, as its user would run it on the same machine."""

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from lora_models import LONGEST

from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.backbones.lora.dataset import TokenizedRows
from polar_pipeline.backbones.lora.memory import none_if_out_of_memory
from polar_pipeline.settings.backbones import LoraSettings

_PARTS = (1, 2, 4, 8, 16)  # how often the rows of a step are divided until they fit


def train_peer(
    base: BaseModel, rows: TokenizedRows, batch: int, padded: bool, settings: LoraSettings, mark: Callable[[], None]
) -> str:
    """Train two epochs in random order, `mark` at the end of each.

    Returns what had to be done so that it fits, to be said.

    A step that does not fit is summed over smaller batches, which costs no more; only where the smallest does not fit
    it recomputes.
    """
    for parts, recompute in [*((parts, False) for parts in _PARTS), (_PARTS[-1], True)]:
        if parts > batch:
            continue
        trainer = _Peer(base, rows, batch, parts, padded, recompute)
        if none_if_out_of_memory(lambda trainer=trainer: trainer.run(settings, mark)):
            summed = f", {parts} batches a step because memory ran out" if parts > 1 else ""
            return summed + (", recomputing" if recompute else "")
    return ", which does not fit into memory"


class _Peer:
    def __init__(
        self, base: BaseModel, rows: TokenizedRows, batch: int, parts: int, padded: bool, recompute: bool
    ) -> None:
        self._base, self._rows, self._batch, self._parts = base, rows, batch, parts
        self._padded, self._recompute = padded, recompute

    def run(self, settings: LoraSettings, mark: Callable[[], None]) -> bool:
        """True when it is done."""
        from peft import LoraConfig, get_peft_model
        from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

        class Marks(TrainerCallback):
            def on_epoch_end(self, *_: Any, **__: Any) -> None:
                mark()

        lora = LoraConfig(task_type="SEQ_CLS", r=settings.rank, lora_alpha=settings.alpha, target_modules="all-linear")
        model = get_peft_model(self._base.model, lora)
        arguments = TrainingArguments(
            output_dir=tempfile.gettempdir(), num_train_epochs=2, use_cpu=self._base.device != "cuda",
            per_device_train_batch_size=-(-self._batch // self._parts), gradient_accumulation_steps=self._parts,
            bf16=self._base.dtype == torch.bfloat16, gradient_checkpointing=self._recompute,
            learning_rate=settings.learning_rate, optim="adamw_torch_fused", save_strategy="no", logging_strategy="no",
            report_to=[], disable_tqdm=True, remove_unused_columns=False,
        )  # fmt: skip
        try:
            places: Any = list(range(len(self._rows.tokens)))
            trainer = Trainer(model, arguments, data_collator=self._collate, train_dataset=places, callbacks=[Marks()])
            trainer.remove_callback(PrinterCallback)
            trainer.train()
        finally:
            self._base.model = model.unload()
            self._base.model.activation_checkpointing_disable()
        return True

    def _collate(self, some: list[int]) -> dict[str, torch.Tensor]:
        tokens = [self._rows.tokens[row] for row in some]
        ids = torch.zeros(len(some), LONGEST if self._padded else max(map(len, tokens)), dtype=torch.long)
        for place, row in enumerate(tokens):
            ids[place, : len(row)] = torch.from_numpy(row)
        labels = torch.from_numpy(np.asarray(self._rows.labels)[some]).float()
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": labels}
