"""Logits of many posts by the adapter that is in the base: sorted by length, large batches, no gradients."""

import numpy as np

from polar_pipeline.backbones.lora.base_model import BaseModel, Tokens
from polar_pipeline.backbones.lora.batches import by_length
from polar_pipeline.metrics.scores import Floats

_LARGER = 4  # batches without a backward pass hold that many times the tokens


def score_tokens(base: BaseModel, rows: Tokens, token_budget: int) -> Floats:
    """Logits float64 (rows,), in the order of `rows`; computed in float32 from the last layer on."""
    import torch

    found: Floats = np.zeros(len(rows))
    was_training = base.model.training
    base.model.eval()
    with torch.inference_mode():
        for batch in by_length(np.array([len(row) for row in rows], dtype=np.int64), _LARGER * token_budget):
            found[batch] = base.logits([rows[place] for place in batch]).double().cpu().numpy()
    base.model.train(was_training)
    return found
