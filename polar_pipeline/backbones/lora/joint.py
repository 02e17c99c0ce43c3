"""Joint training: adapters of several languages, or folds, in one step over the same frozen base.

Each keeps its own batches, loss, clipping, schedule and Adam, so that it becomes what it would have become alone. Where batches are small and
calls cost more than products, a step for all costs little more than a step for one. What does not belong here: how adapters are stacked.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.adapter import Slot
from polar_pipeline.backbones.lora.attempts import Parts, enough_memory
from polar_pipeline.backbones.lora.base_model import Tokens
from polar_pipeline.backbones.lora.blocks import blocks
from polar_pipeline.backbones.lora.checkpoint import read_checkpoint, write_checkpoint
from polar_pipeline.backbones.lora.dropout import own_dropout
from polar_pipeline.backbones.lora.loss import row_losses
from polar_pipeline.backbones.lora.memory import should_recompute
from polar_pipeline.backbones.lora.optimizer import Optimizer
from polar_pipeline.backbones.lora.pace import Pace
from polar_pipeline.backbones.lora.rows import Fit
from polar_pipeline.backbones.lora.schedule import divisors, schedule, step_weights
from polar_pipeline.backbones.lora.stacked import Stack, State
from polar_pipeline.backbones.lora.training import measured
from polar_pipeline.metrics.scores import Ints
from polar_pipeline.settings.backbones import LoraSettings

if TYPE_CHECKING:
    from torch import Tensor

_NOTHING: Ints = np.zeros(0, dtype=np.int64)


def train_adapters(
    slot: Slot, fits: list[Fit], settings: LoraSettings, checkpoint: Path, progress: Progress
) -> list[dict[str, bytes]]:
    """Train an adapter for each of `fits` at once. Returns their files, as `Slot.files` gives them; the last one is left in `slot`.

    `checkpoint` is the file that the same group goes on from; it is removed by nobody here. Raises InputError as `train_adapter`.
    """
    with enough_memory(settings):
        return _trained(slot, fits, settings, checkpoint, progress)


def _trained(
    slot: Slot, fits: list[Fit], settings: LoraSettings, checkpoint: Path, progress: Progress
) -> list[dict[str, bytes]]:
    order = sorted(range(len(fits)), key=lambda place: float(fits[place].rows.lengths.mean()))
    starts = {seed: _copied(slot.fresh(seed)) for seed in dict.fromkeys(fit.seed for fit in fits)}
    wanted = settings.model_copy(update={"token_budget": settings.token_budget * len(fits)})
    recompute = should_recompute(slot.base, wanted)
    slot.empty()
    stack = Stack(slot.base, [starts[fits[place].seed] for place in order], settings.alpha / settings.rank)
    _Joint(slot, stack, [fits[place] for place in order], settings, checkpoint, progress).run(recompute)
    parameters = slot.fresh(fits[-1].seed)
    return [_files(slot, parameters, stack.state(order.index(place))) for place in range(len(fits))]


class _Joint:
    """The state of a group between steps. Finished ones have no more steps, and nothing of theirs is touched."""

    def __init__(
        self, slot: Slot, stack: Stack, fits: list[Fit], settings: LoraSettings, checkpoint: Path, progress: Progress
    ) -> None:
        self._base, self._stack, self._fits, self._settings = slot.base, stack, fits, settings
        self._checkpoint, self._progress = checkpoint, progress
        self._steps = [schedule(fit.rows, settings, fit.seed) for fit in fits]
        self._optimizers = [
            Optimizer(stack.trained(place), settings, len(steps)) for place, steps in enumerate(self._steps)
        ]
        both = list(zip(fits, self._steps, strict=True))
        self._divisors = [divisors(steps, fit.weights) for fit, steps in both]
        self._shares = [step_weights(steps, fit.weights) / divisors(steps, fit.weights) for fit, steps in both]
        self._position, self._parts = 0, Parts(settings, progress, len(fits))  # the next step
        self._count = max(len(steps) for steps in self._steps)
        self._pace = Pace([self._tokens(number) for number in range(self._count)])
        self._names = measure_names(fits)

    def run(self, recompute: bool) -> None:
        self._resume()
        model = self._base.model
        self._stack.enter()
        try:
            with own_dropout(model, self._settings):
                if recompute:
                    model.activation_checkpointing_enable({"use_reentrant": False})
                model.train()
                while self._position < self._count:
                    self._advance()
        finally:
            self._stack.leave()
            if recompute:
                model.activation_checkpointing_disable()
            model.eval()

    def _advance(self) -> None:
        """A step of each. Losses are read from the device only where they are said: reading them waits for the step."""
        number = self._position
        active = self._active(number)
        losses = self._parts.compute(f"{len(self._fits)} adapters", lambda: self._gradients(number))
        for place in active:
            self._optimizers[place].step(number)
        self._position += 1
        self._pace.done(number)
        ending = [place for place in active if self._steps[place][number].ends_epoch]
        self._say(losses, number, active if self._pace.due() else ending)
        for place in ending:
            self._watch(place)
        if self._pace.checkpoint_due(self._settings.checkpoint_seconds):
            self._save()

    def _gradients(self, number: int) -> "Tensor":
        """Sum the gradients of step `number`, of all adapters that have one. Returns their losses (adapters,), on the device."""
        import torch

        self._stack.zero()
        batches = [self._batches(place, number) for place in range(len(self._fits))]
        losses = torch.zeros(len(self._fits), device=self._base.device)
        for turn in range(max(len(mine) for mine in batches)):
            now = [mine[turn] if turn < len(mine) else _NOTHING for mine in batches]
            for block in blocks([self._shape(place, batch) for place, batch in enumerate(now)]):
                found = self._block_losses(block, now, number)
                self._stack.backward(found.sum())
                losses[block.start : block.stop] += found.detach()
        return losses

    def _block_losses(self, block: range, now: list[Ints], number: int) -> "Tensor":
        """Losses (adapters,) of one batch each, padded to one number of rows; padding weighs nothing."""
        rows = max(len(now[place]) for place in block)
        given = np.zeros((2, len(block), rows), dtype=np.float32)  # labels and weights
        tokens: Tokens = [np.zeros(1, dtype=np.int64)] * (len(block) * rows)
        for mine, place in enumerate(block):
            fit, batch = self._fits[place], now[place]
            tokens[mine * rows : mine * rows + len(batch)] = [fit.rows.tokens[row] for row in batch]
            if len(batch):
                given[0, mine, : len(batch)] = fit.rows.labels[batch]
                given[1, mine, : len(batch)] = fit.weights[batch] / self._divisors[place][number]
        labels, weights = self._base.to_device(given)
        self._stack.use(block)
        logits = self._base.logits(tokens).view(len(block), rows)
        losses: Tensor = (row_losses(logits, labels, self._settings) * weights).sum(dim=1)
        return losses

    def _batches(self, place: int, number: int) -> list[Ints]:
        if number >= len(self._steps[place]):
            return []
        whole = self._steps[place][number].batches
        return [part for batch in whole for part in np.array_split(batch, min(self._parts.count, len(batch)))]

    def _shape(self, place: int, batch: Ints) -> tuple[int, int]:
        return (len(batch), max(len(self._fits[place].rows.tokens[row]) for row in batch)) if len(batch) else (0, 0)

    def _active(self, number: int) -> list[int]:
        return [place for place, steps in enumerate(self._steps) if number < len(steps)]

    def _tokens(self, number: int) -> int:
        rows = {place: np.concatenate(self._steps[place][number].batches) for place in self._active(number)}
        return sum(len(self._fits[place].rows.tokens[row]) for place, mine in rows.items() for row in mine)

    def _say(self, losses: "Tensor", number: int, which: list[int]) -> None:
        for place in which:
            name, rate = self._names[place], self._pace.rate
            self._optimizers[place].check()
            loss = float(losses[place]) / self._shares[place][number]
            self._progress.measure(self._position, {f"{name}/loss": loss, f"{name}/tokens_per_second": rate})
            self._progress(
                f"{self._fits[place].title}: step {self._position} of {len(self._steps[place])}, loss {loss:.3f}, "
                f"{self._pace} with {len(self._fits) - 1} others"
            )

    def _watch(self, place: int) -> None:
        self._stack.use(range(place, place + 1))
        measured(self._base, self._fits[place], self._names[place], self._settings, self._position, self._progress)

    def _save(self) -> None:
        for optimizer in self._optimizers:
            optimizer.check()
        tensors = {
            f"{place}.{name}": value
            for place, optimizer in enumerate(self._optimizers)
            for name, value in optimizer.state().items()
        }
        write_checkpoint(
            self._checkpoint, tensors, {"group": self._group(), "position": self._position, "parts": self._parts.count}
        )

    def _resume(self) -> None:
        found = read_checkpoint(self._checkpoint)
        if found is None or found[1].get("group") != self._group():
            return
        tensors, facts = found
        for place, optimizer in enumerate(self._optimizers):
            mark = f"{place}."
            optimizer.restore(
                {name.removeprefix(mark): value for name, value in tensors.items() if name.startswith(mark)}
            )
        self._position, self._parts.count = facts["position"], facts["parts"]
        self._pace.skip(self._position)
        self._progress(f"{len(self._fits)} adapters go on after step {self._position} of {self._count}")

    def _group(self) -> list[Any]:
        """Who is trained, from what: another group's checkpoint is none of this one's, nor one over other posts of a neighbour."""
        both = zip(self._fits, self._steps, strict=True)
        return [[fit.title, fit.key, fit.seed, fit.origin, len(steps)] for fit, steps in both]


def measure_names(fits: list[Fit]) -> list[str]:
    """What measures are called: the fit's key, or its title where several languages have the same keys."""
    if len({fit.key for fit in fits}) == len(fits):
        return [fit.key for fit in fits]
    return [fit.title.replace(" ", "-").replace(",", "") for fit in fits]


def _copied(parameters: dict[str, Any]) -> State:
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def _files(slot: Slot, parameters: dict[str, Any], state: State) -> dict[str, bytes]:
    import torch

    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(state[name])
    return slot.files()
