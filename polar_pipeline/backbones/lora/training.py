"""The training loop of one model: steps over batches, checkpoints, progress, early stopping, and less memory on demand.

A training that was killed goes on from its last checkpoint to the same adapter, bit for bit on a CPU.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.base_model import score_tokens
from polar_pipeline.backbones.lora.checkpoints import read_checkpoint, write_checkpoint
from polar_pipeline.backbones.lora.dataset import (
    Step,
    TokenizedRows,
    TrainingTask,
    loss_divisors,
    step_weights,
    training_steps,
)
from polar_pipeline.backbones.lora.memory import BatchSplitter, none_if_out_of_memory, should_recompute
from polar_pipeline.backbones.lora.optimizer import Optimizer, finer_losses, row_losses, start_at_base_rates
from polar_pipeline.backbones.lora.tunable import TunableModel
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import macro_f1
from polar_pipeline.settings.backbones import LoraSettings

if TYPE_CHECKING:
    from torch import Tensor

_LOG_SECONDS = 5.0  # between two lines


def train_model(
    tunable: TunableModel,
    task: TrainingTask,
    settings: LoraSettings,
    checkpoint: Path,
    progress: Progress,
    advance: Callable[[float], None] = lambda _: None,
) -> None:
    """Train `task` and leave the result in `tunable`. `checkpoint` is the file to go on from; the caller removes it.

    `advance` is called with the tokens done after each step. Raises InputError if memory does not suffice for half the
    token budget either, or if gradients stay not finite.
    """
    training = none_if_out_of_memory(lambda: _Training(tunable, task, settings, checkpoint, progress, advance).run())
    if training is None:  # where no batch can be split, as in the first optimizer step
        raise InputError(
            f"backbone {settings.name!r} has not enough memory to train beside its base: lower token_budget or rank, "
            f"set four_bit to true, or recompute to always."
        )


class _Training:
    """The state of one training between steps."""

    def __init__(
        self,
        tunable: TunableModel,
        task: TrainingTask,
        settings: LoraSettings,
        checkpoint: Path,
        progress: Progress,
        advance: Callable[[float], None],
    ) -> None:
        self._base, self._task, self._settings = tunable.base, task, settings
        self._checkpoint, self._progress, self._advance = checkpoint, progress, advance
        lengths = task.rows.lengths
        self._steps = training_steps(lengths, task.rows.synthetic, settings, task.random_seed)
        self._parameters = tunable.fresh(task.random_seed)
        start_at_base_rates(tunable.base, self._parameters, task.rows.finer)
        self._optimizer = Optimizer(self._parameters, settings, len(self._steps))
        self._position, self._splitter = 0, BatchSplitter(settings, progress)  # the next step
        self._divisors = loss_divisors(self._steps, task.weights)
        # of the loss that is logged, which is the mean over a step's own rows
        self._shares = step_weights(self._steps, task.weights) / self._divisors
        self._best, self._best_loss, self._without = dict[str, Any](), float("inf"), 0
        tokens = [int(lengths[np.concatenate(step.batches)].sum()) for step in self._steps]
        self._tokens_before = np.cumsum([0, *tokens])  # each step, and the end
        self._first = 0  # the step that this process began with
        self._started = self._logged = self._saved = time.monotonic()

    def run(self) -> "_Training":
        """Make the steps that are left, and leave the best epoch's weights where there are such."""
        import torch

        devices = [torch.cuda.current_device()] if self._base.device == "cuda" else []
        with torch.random.fork_rng(devices=devices):  # dropout draws from the global generator
            # measuring draws from it too where there is dropout, so it comes before the seed
            recompute = should_recompute(self._base, self._settings)
            torch.manual_seed(self._task.random_seed)
            self._resume()
            if recompute:
                self._base.model.activation_checkpointing_enable({"use_reentrant": False})
            self._base.model.train()
            try:
                # patience is asked before each step, so that a resumed training does not go on past it
                while self._position < len(self._steps) and self._without < (self._settings.patience or float("inf")):
                    self._step()
            finally:
                if recompute:
                    self._base.model.activation_checkpointing_disable()
                self._base.model.eval()
        with torch.no_grad():
            for name, weights in self._best.items():
                self._parameters[name].copy_(weights)
        return self

    def _step(self) -> None:
        """One step, and what follows it. Its loss is read only to be logged, because reading waits for the GPU."""
        step, number = self._steps[self._position], self._position
        loss = self._splitter.compute(self._task.title, lambda: self._gradients(step, self._divisors[number]))
        self._optimizer.step(number)
        self._position += 1
        self._advance(float(self._tokens_before[self._position]))
        if step.ends_epoch or time.monotonic() - self._logged >= _LOG_SECONDS:
            self._optimizer.check()
            self._log(float(loss) / self._shares[number])
        if step.ends_epoch:
            self._end_epoch(step)
        if time.monotonic() - self._saved >= self._settings.checkpoint_seconds:
            self._save()

    def _log(self, loss: float) -> None:
        self._logged, key = time.monotonic(), self._task.key
        done, total = self._tokens_before[self._position], self._tokens_before[-1]
        rate = float(done - self._tokens_before[self._first]) / max(self._logged - self._started, 1e-9)
        left = f", about {(total - done) / rate:.0f} s left" if done < total and rate else ""
        self._progress.measure(self._position, {f"{key}/loss": loss, f"{key}/tokens_per_second": rate})
        self._progress(
            f"{self._task.title}: step {self._position} of {len(self._steps)}, loss {loss:.3f}, "
            f"{rate:,.0f} tokens/s{left}"
        )

    def _gradients(self, step: Step, divisor: float) -> "Tensor":
        """Sum the gradients of the step's batches. Returns its summed loss over `divisor`, on the device."""
        import torch

        self._optimizer.zero()
        rows, loss = self._task.rows, torch.zeros((), device=self._base.device)
        for batch in step.batches:
            for part in np.array_split(batch, min(self._splitter.parts, len(batch))):
                finer = () if rows.finer is None else rows.finer[part].T
                columns = np.stack([rows.labels[part], self._task.weights[part] / divisor, *finer])
                # one copy of everything
                labels, weights, *others = self._base.to_device(columns.astype(np.float32))
                logits = self._base.logits([rows.tokens[row] for row in part])
                losses = row_losses(logits[:, 0] if others else logits, labels, self._settings)
                if others:
                    losses = losses + rows.finer_weight * finer_losses(logits[:, 1:], torch.stack(others, dim=1))
                weighted = (losses * weights).sum()
                weighted.backward()
                loss += weighted.detach()
        return loss

    def _end_epoch(self, step: Step) -> None:
        """Evaluate on the watched rows; with patience, keep the best epoch and count the epochs since.

        A warm-up counts for neither: a model that saw synthetic posts alone is not wanted, however well it does.
        """
        watch = self._task.watch
        if watch is None or not len(watch.labels):
            return
        loss = self._evaluate(watch)
        if self._settings.patience is None or step.warm_up:
            return
        if loss < self._best_loss:
            self._best_loss, self._without = loss, 0
            self._best = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        else:
            self._without += 1

    def _evaluate(self, watch: TokenizedRows) -> float:
        """The loss of the label on the watched rows; it and macro-F1 are reported."""
        task = self._task
        logits = np.atleast_2d(score_tokens(self._base, watch.tokens, self._settings.token_budget))[0]
        loss = float(np.mean(np.logaddexp(0, np.where(watch.labels == 1, -logits, logits))))
        f1 = macro_f1(watch.labels, (logits >= 0).astype(int))
        self._progress.measure(self._position, {f"{task.key}/dev_loss": loss, f"{task.key}/dev_macro_f1": f1})
        self._progress(f"{task.title}: loss {loss:.3f} and macro-F1 {f1:.3f} on {len(watch.labels)} posts held out")
        return loss

    def _save(self) -> None:
        import torch

        self._saved = time.monotonic()
        self._optimizer.check()
        tensors = self._optimizer.state() | {f"best.{name}": value for name, value in self._best.items()}
        tensors["random.cpu"] = torch.get_rng_state()
        if self._base.device != "cpu":
            tensors["random.gpu"] = torch.get_device_module(self._base.device).get_rng_state()
        best = self._best_loss if self._best else None
        facts = {"position": self._position, "parts": self._splitter.parts, "best_loss": best, "without": self._without}
        write_checkpoint(self._checkpoint, tensors, facts)

    def _resume(self) -> None:
        import torch

        try:
            found = read_checkpoint(self._checkpoint)
        except InputError:
            self._progress(f"{self._task.title}: {self._checkpoint} is damaged, so its training begins anew")
            return
        if found is None:
            return
        tensors, facts = found
        self._optimizer.restore(tensors)
        self._position, self._splitter.parts, self._without = facts["position"], facts["parts"], facts["without"]
        self._best_loss = float("inf") if facts["best_loss"] is None else facts["best_loss"]
        self._best = {
            name.removeprefix("best."): tensors[name].to(self._base.device)
            for name in tensors
            if name.startswith("best.")
        }
        torch.set_rng_state(tensors["random.cpu"])
        if "random.gpu" in tensors:
            torch.get_device_module(self._base.device).set_rng_state(tensors["random.gpu"])
        self._first = self._position
        self._advance(float(self._tokens_before[self._position]))
        self._progress(f"{self._task.title}: goes on after step {self._position} of {len(self._steps)}")
