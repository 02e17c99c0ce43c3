"""A loaded base model: token ids in, one logit per post out; and the logits of many posts, in large batches.

Whatever adapter or weights are in the model at that time compute the logits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from polar_pipeline.backbones.lora.batching import by_length
from polar_pipeline.backbones.lora.memory import none_if_out_of_memory
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats, Ints

if TYPE_CHECKING:
    from torch import Tensor

Tokens = list[Ints]  # one array of token ids per post

_LARGER = 4  # batches without a backward pass hold that many times the tokens
_MASK_BY_LAYER = ("gemma3_text", "qwen3")  # models whose forward pass takes a mask per kind of layer


@dataclass
class BaseModel:
    """A sequence-classification model of transformers with one output, and its tokenizer."""

    model: Any
    tokenizer: Any
    head: str  # name of the classification head
    name: str  # as the settings name it
    identity: str  # which weights these are
    device: str
    dtype: Any
    max_length: int

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it.

        The last token then stands for the post; an encoder's first one does.
        """
        return self.head == "score"

    @property
    def trunk(self) -> Any:
        """The model below the head."""
        return getattr(self.model, self.model.base_model_prefix)

    def tokens(self, texts: list[str]) -> Tokens:
        """Token ids, at most `max_length` per post. A text that spells a special token is text like any other."""
        if not texts:
            return []
        found = self.tokenizer(texts, truncation=True, max_length=self.max_length, split_special_tokens=True)[
            "input_ids"
        ]
        # a tokenizer that adds nothing gives an empty text no token
        return [np.array(row or [self.tokenizer.eos_token_id], dtype=np.int64) for row in found]

    def to_device(self, values: "np.typing.NDArray[Any]") -> "Tensor":
        """`values` on the device. The copy to a GPU is asynchronous, so that the host goes on meanwhile."""
        import torch

        tensor = torch.from_numpy(values)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device == "cuda" else tensor

    def logits(self, rows: Tokens) -> "Tensor":
        """Logits (rows,), float32, of one batch.

        Rows are padded on the right. The real tokens of a causal model cannot see what follows, so it needs no mask and
        attention takes its fast path. Only the last token of each row goes through the head.
        """
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        longest = int(lengths.max())
        padded = np.full((len(rows), longest), self.tokenizer.pad_token_id or 0, dtype=np.int64)
        for place, row in enumerate(rows):
            padded[place, : len(row)] = row
        # all copies come before the trunk: one behind it would wait until it is done, and the GPU then waits for the
        # host
        ids = self.to_device(padded)
        head = getattr(self.model, self.head)
        if not self.causal:
            mask = self.to_device(np.arange(longest) < lengths[:, None])
            hidden = self.trunk(input_ids=ids, attention_mask=mask).last_hidden_state
            return head(hidden[:, :1].float()).squeeze(-1)  # type: ignore[no-any-return]
        ends = self.to_device(np.arange(len(rows)) * longest + lengths - 1)
        unmasked = causal_mask(self.model.config, longest)
        hidden = self.trunk(input_ids=ids, attention_mask=unmasked).last_hidden_state
        last = hidden.reshape(-1, hidden.shape[-1]).index_select(0, ends)
        return head(last.float()).squeeze(-1)  # type: ignore[no-any-return]


def causal_mask(config: Any, longest: int) -> dict[str, None] | None:
    """The `attention_mask` argument for rows of up to `longest` tokens that are padded on the right.

    Given None, transformers finds out by itself whether a mask is needed and waits for the GPU meanwhile. Given a None
    for every kind of layer, it does not look. A sliding window that is shorter than a row needs a mask, so None is
    returned and transformers makes it.
    """
    if config.model_type not in _MASK_BY_LAYER or config._attn_implementation != "sdpa":
        return None
    if getattr(config, "use_bidirectional_attention", False):
        return None
    if "sliding_attention" in config.layer_types and longest > config.sliding_window:
        return None
    return dict.fromkeys(config.layer_types)


def score_tokens(
    base: BaseModel, rows: Tokens, token_budget: int, advance: Callable[[float], None] | None = None
) -> Floats:
    """Logits float64 (rows,), in the order of `rows`, computed in float32 from the last layer on.

    `advance` is called with the number of rows done. When memory runs out, batches are halved, down to a quarter of the
    token budget; raises InputError if that does not fit either.
    """
    was_training = base.model.training
    base.model.eval()
    try:
        for larger in (_LARGER, _LARGER / 2, 1.0, 0.5, 0.25):
            budget = max(int(larger * token_budget), 1)
            found = none_if_out_of_memory(partial(_score, base, rows, budget, advance))
            if found is not None:
                return found
    finally:
        base.model.train(was_training)
    raise InputError(
        f"model {base.name!r} has not enough memory to score a quarter of token_budget {token_budget}: lower it."
    )


def _score(base: BaseModel, rows: Tokens, budget: int, advance: Callable[[float], None] | None) -> Floats:
    import torch

    batches = by_length(np.array([len(row) for row in rows], dtype=np.int64), budget)
    found: Floats = np.zeros(len(rows))
    logits, done = [], 0
    with torch.inference_mode():
        for batch in batches:
            logits.append(base.logits([rows[place] for place in batch]))
            done += len(batch)
            if advance:
                advance(done)
        if batches:  # read once at the end, so that a GPU does not wait between batches
            found[np.concatenate(batches)] = torch.cat(logits).double().cpu().numpy()
    return found
