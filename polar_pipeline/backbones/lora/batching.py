"""Batches of rows of similar length within a token budget, and the optimizer steps of a training.

Random batches of short posts compute more than twice the tokens that they hold; these compute a few percent more.
"""

from typing import NamedTuple

import numpy as np

from polar_pipeline.metrics.scores import Floats, Ints
from polar_pipeline.settings.backbones import LoraSettings

Mask = np.typing.NDArray[np.bool_]

_BANDS = 16  # of length; another number gives other adapters
_MIN_WEIGHT = 1e-12


class Step(NamedTuple):
    """One optimizer step: batches of row numbers, whose gradients are summed."""

    batches: tuple[Ints, ...]
    ends_epoch: bool
    warm_up: bool = False  # over synthetic posts, before the real ones


def by_length(lengths: Ints, token_budget: int, order: Ints | None = None) -> list[Ints]:
    """Row numbers in batches, shortest rows first, of at most `token_budget` tokens with padding.

    `lengths` are tokens per row, int (n,). Rows of one length come in `order`, by default as they are. A row longer
    than the budget is a batch of its own.
    """
    order = np.arange(len(lengths)) if order is None else order
    ranked = order[np.argsort(lengths[order], kind="stable")]
    batches: list[Ints] = []
    start = 0
    for end in range(1, len(ranked) + 1):
        # the next row is the longest of the batch that it would join
        if end == len(ranked) or (end + 1 - start) * lengths[ranked[end]] > token_budget:
            batches.append(ranked[start:end])
            start = end
    return batches


def padded_share(lengths: Ints, batches: list[Ints]) -> float:
    """Computed tokens over real ones; 1 means no padding. `batches` hold rows of `lengths`."""
    computed = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return computed / max(sum(int(lengths[batch].sum()) for batch in batches), 1)


def plan_epochs(lengths: Ints, token_budget: int, accumulate: int, epochs: int, seed: int) -> list[Step]:
    """The optimizer steps of `epochs`. Each epoch shuffles which rows share a batch, and the order of batches.

    Batches are visited by bands of length, in an order that the seed alone gives; inside a band the order is random.
    """
    steps: list[Step] = []
    for epoch in range(epochs):
        random = np.random.default_rng([seed, epoch])
        rounds = random.permutation(_BANDS)
        batches = by_length(lengths, token_budget, random.permutation(len(lengths)))
        bands = np.arange(len(batches)) * _BANDS // max(len(batches), 1)
        visited = np.lexsort((random.permutation(len(batches)), rounds[bands]))
        groups = [visited[start : start + accumulate] for start in range(0, len(visited), accumulate)]
        for place, group in enumerate(groups, start=1):
            steps.append(Step(tuple(batches[batch] for batch in group), place == len(groups)))
    return steps


def training_steps(lengths: Ints, synthetic: Mask, settings: LoraSettings, seed: int) -> list[Step]:
    """All steps of a training on rows of `lengths` tokens, of which some are `synthetic`.

    With `synthetic: warm_up`, one epoch over the synthetic rows comes before the epochs over the real ones.
    """
    if settings.synthetic == "mixed" or not synthetic.any():
        return plan_epochs(lengths, settings.token_budget, settings.accumulate, settings.epochs, seed)
    steps = []
    for warm_up, which, epochs in ((True, synthetic, 1), (False, ~synthetic, settings.epochs)):
        places = np.flatnonzero(which)
        for step in plan_epochs(lengths[places], settings.token_budget, settings.accumulate, epochs, seed):
            batches = tuple(places[batch] for batch in step.batches)
            steps.append(Step(batches, step.ends_epoch, warm_up))
    return steps


def training_tokens(lengths: Ints, synthetic: Mask, settings: LoraSettings) -> int:
    """Real tokens in all steps of a training: how long it takes, before it is planned."""
    once = synthetic & (settings.synthetic == "warm_up")
    return int(lengths[once].sum() + lengths[~once].sum() * settings.epochs)


def step_weights(steps: list[Step], weights: Floats) -> Floats:
    """The sum of row `weights` in each step, float (steps,)."""
    sums = [sum(float(weights[batch].sum()) for batch in step.batches) for step in steps]
    return np.maximum(sums, _MIN_WEIGHT)


def loss_divisors(steps: list[Step], weights: Floats) -> Floats:
    """What the summed loss of each step is divided by, float (steps,): the mean weight of its epoch's steps.

    Every row of an epoch then counts the same. Divided by its own weight, a step of 8 long posts would move the adapter
    as far as one of 139 short ones, so each long post would count 17 times as much as a short one.
    """
    sums, ends = step_weights(steps, weights), [place + 1 for place, step in enumerate(steps) if step.ends_epoch]
    found: Floats = np.zeros(len(steps))
    for start, end in zip([0, *ends], ends, strict=False):
        found[start:end] = sums[start:end].mean()
    return found
