"""Batches: rows of like length together, as many as a token budget holds, in an order that a seed gives.

Random batches of short posts compute more than twice the tokens that they hold; these compute a few percent more. What does not
belong here: tensors.
"""

from typing import NamedTuple

import numpy as np

from polar_pipeline.metrics.scores import Ints

_BANDS = 16


class Step(NamedTuple):
    """One optimizer step: batches of row numbers, whose gradients are summed, and whether an epoch ends with it."""

    batches: tuple[Ints, ...]
    ends_epoch: bool
    warm_up: bool = False  # over synthetic posts, before the real ones


def by_length(lengths: Ints, token_budget: int, order: Ints | None = None) -> list[Ints]:
    """Row numbers in batches whose number of rows times longest length is at most `token_budget`, shortest first.

    `lengths` are tokens a row, int (n,). Rows of one length come in `order`, by default as they are. A row longer than the
    budget is a batch of its own.
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


def plan(lengths: Ints, token_budget: int, accumulate: int, epochs: int, seed: int) -> list[Step]:
    """The optimizer steps of so many epochs; each epoch shuffles which rows share a batch, and the order of batches.

    Batches are visited by bands of length. The seed alone orders the bands, so that languages that are trained together
    have batches of like length at the same time; inside a band the order is random.
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


def padded_share(lengths: Ints, batches: list[Ints]) -> float:
    """Computed tokens over real ones; 1 is no padding. `batches` hold rows of `lengths`."""
    computed = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return computed / max(sum(int(lengths[batch].sum()) for batch in batches), 1)
