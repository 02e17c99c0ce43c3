"""A loaded base: token numbers in, one logit a post out. It is frozen; adapters are put into it and taken out of it.

What does not belong here: where it came from, and training.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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

    def logits(self, rows: Tokens) -> "Tensor":
        """Logits (rows,), float32, of one batch.

        Rows are padded on the right. A causal model's real tokens cannot see what follows, so that it needs no mask, and
        attention takes its fast path; only each row's last token goes through the head.
        """
        import torch

        lengths = torch.tensor([len(row) for row in rows])
        ids = torch.full((len(rows), int(lengths.max())), self.tokenizer.pad_token_id or 0)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = torch.from_numpy(row)
        mask = None if self.causal else (torch.arange(ids.shape[1]) < lengths[:, None]).to(self.device)
        hidden = self.trunk(input_ids=ids.to(self.device), attention_mask=mask).last_hidden_state
        head = getattr(self.model, self.head)
        if self.causal:
            last = hidden[torch.arange(len(rows), device=self.device), (lengths - 1).to(self.device)]
            return head(last.float()).squeeze(-1)  # type: ignore[no-any-return]
        return head(hidden[:, :1].float()).squeeze(-1)  # type: ignore[no-any-return]
