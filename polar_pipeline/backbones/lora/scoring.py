"""Logits of many posts by the adapter that is in the base: sorted by length, large batches, no gradients."""

from functools import partial

import numpy as np

from polar_pipeline.backbones.lora.attempts import attempted
from polar_pipeline.backbones.lora.base_model import BaseModel, Tokens
from polar_pipeline.backbones.lora.batches import by_length
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats

_LARGER = 4  # batches without a backward pass hold that many times the tokens


def score_tokens(base: BaseModel, rows: Tokens, token_budget: int) -> Floats:
    """Logits float64 (rows,), in the order of `rows`; computed in float32 from the last layer on.

    Out of memory, batches are halved, down to a quarter of the token budget. Raises InputError when that is too much too.
    """
    was_training = base.model.training
    base.model.eval()
    try:
        for larger in (_LARGER, _LARGER / 2, 1.0, 0.5, 0.25):
            found = attempted(partial(_score, base, rows, max(int(larger * token_budget), 1)))
            if found is not None:
                return found
    finally:
        base.model.train(was_training)
    raise InputError(
        f"model {base.name!r} has not enough memory to score a quarter of token_budget {token_budget}: lower it."
    )


def _score(base: BaseModel, rows: Tokens, budget: int) -> Floats:
    import torch

    batches = by_length(np.array([len(row) for row in rows], dtype=np.int64), budget)
    found: Floats = np.zeros(len(rows))
    if batches:
        with torch.inference_mode():
            # read once at the end, so that a GPU does not wait between batches
            logits = torch.cat([base.logits([rows[place] for place in batch]) for batch in batches])
            found[np.concatenate(batches)] = logits.double().cpu().numpy()
    return found
