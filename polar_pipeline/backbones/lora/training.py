"""Training one adapter: steps over batches of a token budget, checkpoints, progress, and what to do when memory runs out.

A training that was killed goes on from its last checkpoint to the same adapter, bit for bit on a CPU. What does not belong here: which
rows are fitted on, and where adapters go.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.backbones.lora.bases import Place
from polar_pipeline.backbones.lora.batches import Step, plan
from polar_pipeline.backbones.lora.checkpoint import read_checkpoint, write_checkpoint
from polar_pipeline.backbones.lora.dropout import own_dropout
from polar_pipeline.backbones.lora.loss import row_losses
from polar_pipeline.backbones.lora.memory import should_recompute
from polar_pipeline.backbones.lora.optimizer import Optimizer
from polar_pipeline.backbones.lora.rows import Fit, Rows
from polar_pipeline.backbones.lora.scoring import score_tokens
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Ints, macro_f1
from polar_pipeline.task.backbones import LoraSettings

if TYPE_CHECKING:
    from torch import Tensor

_SAY_SECONDS = 5.0


def schedule(rows: Rows, settings: LoraSettings, seed: int) -> list[Step]:
    """All steps of a training: where synthetic posts are a warm-up, one epoch over them and then the epochs over real rows."""
    if settings.synthetic == "mixed" or not rows.synthetic.any():
        return plan(rows.lengths, settings.token_budget, settings.accumulate, settings.epochs, seed)
    parts = []
    for which, epochs in ((rows.synthetic, 1), (~rows.synthetic, settings.epochs)):
        places = np.flatnonzero(which)
        steps = plan(rows.lengths[places], settings.token_budget, settings.accumulate, epochs, seed)
        parts += [Step(tuple(places[batch] for batch in step.batches), step.ends_epoch) for step in steps]
    return parts


def train_adapter(slot: Place, fit: Fit, settings: LoraSettings, checkpoint: Path, progress: Progress) -> None:
    """Leave the trained adapter of `fit` in `slot`; `checkpoint` is the file to go on from, and is removed by nobody here.

    Raises InputError when memory does not suffice for half the token budget either, or gradients stay not finite.
    """
    _Training(slot, fit, settings, checkpoint, progress).run()


class _Training:
    """The state of one training between steps."""

    def __init__(self, slot: Place, fit: Fit, settings: LoraSettings, checkpoint: Path, progress: Progress) -> None:
        self._slot, self._base, self._fit, self._settings = slot, slot.base, fit, settings
        self._checkpoint, self._progress = checkpoint, progress
        self._steps = schedule(fit.rows, settings, fit.seed)
        self._parameters = slot.fresh(fit.seed)
        self._optimizer = Optimizer(self._parameters, settings, len(self._steps))
        self._position, self._parts = 0, 1  # next step; parts that each batch is cut into
        self._best, self._best_loss, self._without = dict[str, Any](), float("inf"), 0
        self._lengths = fit.rows.lengths
        self._pace = Pace([int(self._lengths[np.concatenate(step.batches)].sum()) for step in self._steps])

    def run(self) -> None:
        import torch

        devices = [torch.cuda.current_device()] if self._base.device == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # dropout draws from the global generator
            # measuring draws from it too where there is dropout, so it comes before the seed
            recompute = should_recompute(self._base, self._settings)
            torch.manual_seed(self._fit.seed)
            self._resume()
            if recompute:
                self._base.model.activation_checkpointing_enable({"use_reentrant": False})
            self._base.model.train()
            try:
                with own_dropout(self._base.model, self._settings):
                    while self._position < len(self._steps) and not self._ran_out:
                        self._advance()
            finally:
                if recompute:
                    self._base.model.activation_checkpointing_disable()
                self._base.model.eval()
        if self._best:
            self._put(self._best)

    @property
    def _ran_out(self) -> bool:
        """Whether training ends for want of progress on dev; a killed one must not go on past it, so it is asked before each step."""
        return self._settings.patience is not None and self._without >= self._settings.patience

    def _advance(self) -> None:
        """One step, and what follows it."""
        step, number = self._steps[self._position], self._position
        loss = self._step(step, number)
        self._position += 1
        self._pace.done(number)
        if self._pace.due() or step.ends_epoch:
            key = self._fit.key
            self._progress.measure(self._position, {f"{key}/loss": loss, f"{key}/tokens_per_second": self._pace.rate})
            self._progress(
                f"{self._fit.title}: step {self._position} of {len(self._steps)}, loss {loss:.3f}, {self._pace}"
            )
        if step.ends_epoch:
            self._end_epoch()
        if self._pace.checkpoint_due(self._settings.checkpoint_seconds):
            self._save()

    def _step(self, step: Step, number: int) -> float:
        """Sum the gradients of the step's batches and make it. Returns the mean loss of its rows."""
        import torch

        while True:
            try:
                loss = self._gradients(step)
                break
            except torch.OutOfMemoryError:
                if self._parts > 1:
                    raise InputError(
                        f"backbone {self._settings.name!r} has not enough memory for half of token_budget "
                        f"{self._settings.token_budget} either: lower it, set four_bit to true, or recompute to always."
                    ) from None
                self._parts = 2
                torch.cuda.empty_cache()
                self._progress(f"{self._fit.title}: out of memory, so each batch is computed in two halves from now on")
        self._optimizer.step(number)
        return loss

    def _gradients(self, step: Step) -> float:
        self._optimizer.zero()
        total = float(self._fit.weights[np.concatenate(step.batches)].sum())
        loss = 0.0
        for batch in step.batches:
            for part in np.array_split(batch, min(self._parts, len(batch))):
                weighed = self._weighed_loss(part) / max(total, 1e-12)
                weighed.backward()
                loss += float(weighed.detach())
        return loss

    def _weighed_loss(self, batch: Ints) -> "Tensor":
        import torch

        logits = self._base.logits([self._fit.rows.tokens[row] for row in batch])
        labels = torch.from_numpy(self._fit.rows.labels[batch]).to(logits)
        weights = torch.from_numpy(self._fit.weights[batch]).to(logits)
        return (row_losses(logits, labels, self._settings) * weights).sum()

    def _end_epoch(self) -> None:
        """Measure what is watched; with patience, keep the best and count the epochs since."""
        loss = measured(self._base, self._fit, self._fit.key, self._settings, self._position, self._progress)
        if loss is None:
            return
        if self._settings.patience is None:
            return
        if loss < self._best_loss:
            self._best_loss, self._without = loss, 0
            self._best = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        else:
            self._without += 1

    def _put(self, state: dict[str, Any]) -> None:
        import torch

        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(state[name])

    def _save(self) -> None:
        import torch

        tensors = self._optimizer.state() | {f"best.{name}": value for name, value in self._best.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self._base.device == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        best = self._best_loss if self._best else None
        facts = {"position": self._position, "parts": self._parts, "best_loss": best, "without": self._without}
        write_checkpoint(self._checkpoint, tensors, facts)

    def _resume(self) -> None:
        import torch

        found = read_checkpoint(self._checkpoint)
        if found is None:
            return
        tensors, facts = found
        self._optimizer.restore(tensors)
        self._position, self._parts, self._without = facts["position"], facts["parts"], facts["without"]
        self._best_loss = float("inf") if facts["best_loss"] is None else facts["best_loss"]
        self._best = {
            name.removeprefix("best."): tensors[name].to(self._base.device)
            for name in tensors
            if name.startswith("best.")
        }
        torch.set_rng_state(tensors["random.cpu"])
        if "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])
        self._pace.skip(self._position)
        self._progress(f"{self._fit.title}: goes on after step {self._position} of {len(self._steps)}")


def measured(
    base: BaseModel, fit: Fit, name: str, settings: LoraSettings, step: int, progress: Progress
) -> float | None:
    """The loss of the adapter in place on the rows that are watched; it and macro-F1 go to `progress`. None where none are watched."""
    watch = fit.watch
    if watch is None or not len(watch.labels):
        return None
    logits = score_tokens(base, watch.tokens, settings.token_budget)
    loss = float(np.mean(np.logaddexp(0, np.where(watch.labels == 1, -logits, logits))))
    f1 = macro_f1(watch.labels, (logits >= 0).astype(int))
    progress.measure(step, {f"{name}/dev_loss": loss, f"{name}/dev_macro_f1": f1})
    progress(f"{fit.title}: loss {loss:.3f} and macro-F1 {f1:.3f} on {len(watch.labels)} posts held out")
    return loss


class Pace:
    """Tokens a second, and the time left."""

    def __init__(self, tokens: list[int]) -> None:
        self._ahead = sum(tokens)
        self._tokens, self._done = tokens, 0
        self._started = self._said = self._saved = time.monotonic()

    def skip(self, position: int) -> None:
        """So many steps were made before."""
        self._ahead -= sum(self._tokens[:position])

    def done(self, number: int) -> None:
        """Count step `number`."""
        self._done += self._tokens[number]
        self._ahead -= self._tokens[number]

    @property
    def rate(self) -> float:
        """Real tokens a second, padding not counted."""
        return self._done / max(time.monotonic() - self._started, 1e-9)

    def due(self) -> bool:
        """Whether it is time to say something."""
        now = time.monotonic()
        if now - self._said < _SAY_SECONDS:
            return False
        self._said = now
        return True

    def checkpoint_due(self, seconds: float) -> bool:
        """Whether it is time to save."""
        now = time.monotonic()
        if now - self._saved < seconds:
            return False
        self._saved = now
        return True

    def __str__(self) -> str:
        """The rate, and the time left."""
        left = f", about {self._ahead / self.rate:.0f} s left" if self._ahead and self.rate else ""
        return f"{self.rate:,.0f} tokens/s{left}"
