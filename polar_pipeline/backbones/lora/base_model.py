"""A loaded base: token numbers in, one logit a post out. It is frozen; adapters are put into it and taken out of it.

What does not belong here: where it came from, and training.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from polar_pipeline.backbones.lora.masks import causal_mask
from polar_pipeline.metrics.scores import Ints

if TYPE_CHECKING:
    from torch import Tensor

Tokens = list[Ints]  # one array of token numbers a post


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
        """Whether a token sees only those before it, so that the last one stands for the post; an encoder's is the first."""
        return self.head == "score"

    @property
    def trunk(self) -> Any:
        """The model below the head."""
        return getattr(self.model, self.model.base_model_prefix)

    def tokens(self, texts: list[str]) -> Tokens:
        """Token numbers, at most `max_length` a post. A text that spells a special token is text like any other."""
        if not texts:
            return []
        found = self.tokenizer(texts, truncation=True, max_length=self.max_length, split_special_tokens=True)[
            "input_ids"
        ]
        # a tokenizer that adds nothing gives an empty text no token
        return [np.array(row or [self.tokenizer.eos_token_id], dtype=np.int64) for row in found]

    def to_device(self, values: "np.typing.NDArray[Any]") -> "Tensor":
        """`values` on the device, for a GPU on their way: the host goes on while they are copied."""
        import torch

        there = torch.from_numpy(values)
        return there.pin_memory().to(self.device, non_blocking=True) if self.device == "cuda" else there

    def logits(self, rows: Tokens) -> "Tensor":
        """Logits (rows,), float32, of one batch.

        Rows are padded on the right. A causal model's real tokens cannot see what follows, so that it needs no mask, and
        attention takes its fast path; only each row's last token goes through the head.
        """
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        longest = int(lengths.max())
        padded = np.full((len(rows), longest), self.tokenizer.pad_token_id or 0, dtype=np.int64)
        for place, row in enumerate(rows):
            padded[place, : len(row)] = row
        # all copies come before the trunk: one behind it would wait until it is done, and the GPU then waits for the host
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
