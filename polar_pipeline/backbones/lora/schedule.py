"""What a training goes through: its steps, epoch by epoch, and what each step counts.

What does not belong here: tensors.
"""

import numpy as np

from polar_pipeline.backbones.lora.batches import Step, plan
from polar_pipeline.backbones.lora.rows import Rows
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.settings.backbones import LoraSettings

_NEXT_TO_NOTHING = 1e-12


def schedule(rows: Rows, settings: LoraSettings, seed: int) -> list[Step]:
    """All steps of a training: where synthetic posts are a warm-up, one epoch over them and then the epochs over real rows."""
    if settings.synthetic == "mixed" or not rows.synthetic.any():
        return plan(rows.lengths, settings.token_budget, settings.accumulate, settings.epochs, seed)
    steps = []
    for warm_up, which, epochs in ((True, rows.synthetic, 1), (False, ~rows.synthetic, settings.epochs)):
        places = np.flatnonzero(which)
        for step in plan(rows.lengths[places], settings.token_budget, settings.accumulate, epochs, seed):
            batches = tuple(places[batch] for batch in step.batches)
            steps.append(Step(batches, step.ends_epoch, warm_up))
    return steps


def step_weights(steps: list[Step], weights: Floats) -> Floats:
    """The sum of `weights` over the rows of each step, float (steps,)."""
    sums = [sum(float(weights[batch].sum()) for batch in step.batches) for step in steps]
    return np.maximum(sums, _NEXT_TO_NOTHING)


def divisors(steps: list[Step], weights: Floats) -> Floats:
    """What the summed loss of each step is divided by, float (steps,): the mean weight of its epoch's steps.

    So every row of an epoch counts the same. Divided by its own weight, a step of 8 long posts would move the adapter as far as one of
    139 short ones, and each of the long posts 17 times as far as a short one.
    """
    sums, ends = step_weights(steps, weights), [place + 1 for place, step in enumerate(steps) if step.ends_epoch]
    found: Floats = np.zeros(len(steps))
    for start, end in zip([0, *ends], ends, strict=False):
        found[start:end] = sums[start:end].mean()
    return found
