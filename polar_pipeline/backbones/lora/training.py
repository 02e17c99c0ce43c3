"""Training one adapter: steps over batches of a token budget, checkpoints, progress, and what to do when memory runs out.

A training that was killed goes on from its last checkpoint to the same adapter, bit for bit on a CPU. What does not belong here: which
rows are fitted on, and where adapters go.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.attempts import Parts, enough_memory
from polar_pipeline.backbones.lora.base_model import BaseModel
from polar_pipeline.backbones.lora.bases import Place
from polar_pipeline.backbones.lora.batches import Step
from polar_pipeline.backbones.lora.checkpoint import read_checkpoint, write_checkpoint
from polar_pipeline.backbones.lora.dropout import own_dropout
from polar_pipeline.backbones.lora.loss import row_losses
from polar_pipeline.backbones.lora.memory import should_recompute
from polar_pipeline.backbones.lora.optimizer import Optimizer
from polar_pipeline.backbones.lora.pace import Pace
from polar_pipeline.backbones.lora.rows import Fit
from polar_pipeline.backbones.lora.schedule import divisors, schedule, step_weights
from polar_pipeline.backbones.lora.scoring import score_tokens
from polar_pipeline.metrics.scores import Ints, macro_f1
from polar_pipeline.settings.backbones import LoraSettings

if TYPE_CHECKING:
    from torch import Tensor


def train_adapter(slot: Place, fit: Fit, settings: LoraSettings, checkpoint: Path, progress: Progress) -> None:
    """Leave the trained adapter of `fit` in `slot`; `checkpoint` is the file to go on from, and is removed by nobody here.

    Raises InputError when memory does not suffice for half the token budget either, or gradients stay not finite.
    """
    with enough_memory(settings):
        _Training(slot, fit, settings, checkpoint, progress).run()


class _Training:
    """The state of one training between steps."""

    def __init__(self, slot: Place, fit: Fit, settings: LoraSettings, checkpoint: Path, progress: Progress) -> None:
        self._slot, self._base, self._fit, self._settings = slot, slot.base, fit, settings
        self._checkpoint, self._progress = checkpoint, progress
        self._steps = schedule(fit.rows, settings, fit.seed)
        self._parameters = slot.fresh(fit.seed)
        self._optimizer = Optimizer(self._parameters, settings, len(self._steps))
        self._position, self._parts = 0, Parts(settings, progress)  # the next step
        self._divisors = divisors(self._steps, fit.weights)
        # of the loss that is said, which is the mean over a step's own rows
        self._shares = step_weights(self._steps, fit.weights) / self._divisors
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
        """One step, and what follows it. A loss is read from the device only where it is said: reading it waits for the step."""
        step, number = self._steps[self._position], self._position
        loss = self._parts.compute(self._fit.title, lambda: self._gradients(step, self._divisors[number]))
        self._optimizer.step(number)
        self._position += 1
        self._pace.done(number)
        if self._pace.due() or step.ends_epoch:
            self._optimizer.check()
            self._say(float(loss) / self._shares[number])
        if step.ends_epoch:
            self._end_epoch(step)
        if self._pace.checkpoint_due(self._settings.checkpoint_seconds):
            self._save()

    def _say(self, loss: float) -> None:
        key, rate = self._fit.key, self._pace.rate
        self._progress.measure(self._position, {f"{key}/loss": loss, f"{key}/tokens_per_second": rate})
        self._progress(f"{self._fit.title}: step {self._position} of {len(self._steps)}, loss {loss:.3f}, {self._pace}")

    def _gradients(self, step: Step, divisor: float) -> "Tensor":
        """Sum the gradients of the step's batches. Returns its summed loss over `divisor`, on the device."""
        import torch

        self._optimizer.zero()
        loss = torch.zeros((), device=self._base.device)
        for batch in step.batches:
            for part in np.array_split(batch, min(self._parts.count, len(batch))):
                weighed = self._weighed_loss(part, divisor)
                weighed.backward()
                loss += weighed.detach()
        return loss

    def _weighed_loss(self, batch: Ints, divisor: float) -> "Tensor":
        labels, weights = self._fit.rows.labels[batch], self._fit.weights[batch] / divisor
        given = self._base.to_device(np.stack([labels, weights]).astype(np.float32))
        logits = self._base.logits([self._fit.rows.tokens[row] for row in batch])
        return (row_losses(logits, given[0], self._settings) * given[1]).sum()

    def _end_epoch(self, step: Step) -> None:
        """Measure what is watched; with patience, keep the best and count the epochs since.

        A warm-up counts for neither: what saw synthetic posts alone is not what is asked for, however well it does.
        """
        loss = measured(self._base, self._fit, self._fit.key, self._settings, self._position, self._progress)
        if loss is None or self._settings.patience is None or step.warm_up:
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

        self._optimizer.check()
        tensors = self._optimizer.state() | {f"best.{name}": value for name, value in self._best.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self._base.device == "cuda":
            tensors["random.cuda"] = torch.cuda.get_rng_state()
        best = self._best_loss if self._best else None
        facts = {"position": self._position, "parts": self._parts.count, "best_loss": best, "without": self._without}
        write_checkpoint(self._checkpoint, tensors, facts)

    def _resume(self) -> None:
        import torch

        found = read_checkpoint(self._checkpoint)
        if found is None:
            return
        tensors, facts = found
        self._optimizer.restore(tensors)
        self._position, self._parts.count, self._without = facts["position"], facts["parts"], facts["without"]
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
