"""A loaded base model: token ids in, logits of each post out; the logits of many posts; layers in fewer kernels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from polar_pipeline.backbones.lora.memory import none_if_out_of_memory
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats, Ints
from polar_pipeline.pretrained.model_files import position_limit

if TYPE_CHECKING:
    from torch import Tensor

Tokens = list[Ints]  # one array of token ids per post

_LARGER = 4  # batches without a backward pass hold that many times the tokens
_MASK_BY_LAYER = ("gemma3_text", "qwen3")  # models whose forward pass takes a mask per kind of layer


@dataclass
class BaseModel:
    """A sequence-classification model of transformers, and its tokenizer.

    Its outputs are the label's, then one for each finer label, group by group.
    """

    model: Any
    tokenizer: Any
    head: str  # name of the classification head
    name: str  # as the settings name it
    identity: str  # which weights these are
    device: str
    dtype: Any
    max_length: int
    pooler: str = ""  # name of the module between trunk and head, which is trained with the head; most have none
    untrained: frozenset[str] = frozenset()  # parameters of the pooler that the checkpoint does not have
    groups: tuple[int, ...] = ()  # sizes of the groups of finer labels

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it: the last one then stands for the post."""
        return self.head == "score"

    @property
    def outputs(self) -> int:
        """How many logits the head gives a row."""
        return 1 + sum(self.groups)

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the modules that are trained whole, pooler first."""
        return (self.pooler, self.head) if self.pooler else (self.head,)

    @property
    def trunk(self) -> Any:
        """The model below the head."""
        return getattr(self.model, self.model.base_model_prefix)

    def tokens(self, texts: list[str]) -> Tokens:
        """Token ids of each post, at most `max_length` and what the model has positions for.

        A text that spells a special token is text like any other.
        """
        if not texts:
            return []
        longest = min(self.max_length, position_limit(self.model.config))
        found = self.tokenizer(texts, truncation=True, max_length=longest, split_special_tokens=True)
        # a tokenizer that adds nothing gives an empty text no token
        return [np.array(row or [self.tokenizer.eos_token_id or 0], dtype=np.int64) for row in found["input_ids"]]

    def to_device(self, values: "np.typing.NDArray[Any]") -> "Tensor":
        """`values` on the device. The copy to a GPU is asynchronous, so that the host goes on meanwhile."""
        import torch

        tensor = torch.from_numpy(values)
        return tensor.pin_memory().to(self.device, non_blocking=True) if self.device == "cuda" else tensor

    def logits(self, rows: Tokens) -> "Tensor":
        """Logits (rows,) or, with finer labels, (rows, outputs), float32, of one batch, padded on the right.

        Tokens of a causal model cannot see the padding that follows, so without a mask attention takes its fast path.
        Encoders pool in several ways: theirs is transformers' own forward pass.
        """
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        longest = int(lengths.max())
        padded = np.full((len(rows), longest), self.tokenizer.pad_token_id or 0, dtype=np.int64)
        for place, row in enumerate(rows):
            padded[place, : len(row)] = row
        # all copies come before the trunk: one behind it would wait until it is done, and the GPU then waits for the
        # host
        ids = self.to_device(padded)
        if not self.causal:
            mask = self.to_device(np.arange(longest) < lengths[:, None])
            return self.model(input_ids=ids, attention_mask=mask).logits.float().squeeze(-1)  # type: ignore[no-any-return]
        ends = self.to_device(np.arange(len(rows)) * longest + lengths - 1)
        unmasked = causal_mask(self.model.config, longest)
        hidden = self.trunk(input_ids=ids, attention_mask=unmasked).last_hidden_state
        last = hidden.reshape(-1, hidden.shape[-1]).index_select(0, ends)
        return getattr(self.model, self.head)(last.float()).squeeze(-1)  # type: ignore[no-any-return]

    def scores(self, rows: Tokens) -> "Tensor":
        """The label's logits (rows,) or, with finer labels, (heads, rows), float32, of one batch.

        The further heads are scores of any label of a group being true: the log-sum-exp of the group's logits.
        """
        import torch

        logits = self.logits(rows)
        if not self.groups:
            return logits
        return torch.stack([part.logsumexp(dim=1) for part in logits.split((1, *self.groups), dim=1)])


def heads_shape(groups: tuple[int, ...]) -> tuple[int, ...]:
    """What comes before the posts in the shape of their logits: (heads,), or nothing for the label alone."""
    return (1 + len(groups),) if groups else ()


def cast_inputs(module: Any) -> None:
    """Let `module` take inputs of any dtype: heads are trained in float32 beside a trunk in bfloat16."""
    module.register_forward_pre_hook(_cast)


def _cast(module: Any, inputs: "tuple[Tensor, ...]") -> "tuple[Tensor, ...]":
    dtype = next(module.parameters()).dtype
    return tuple(tensor.to(dtype) for tensor in inputs)


def causal_mask(config: Any, longest: int) -> dict[str, None] | None:
    """The `attention_mask` argument for rows of up to `longest` tokens that are padded on the right.

    Given None, transformers waits for the GPU to find out whether a mask is needed; given None for every kind of layer,
    it does not. A sliding window shorter than a row needs a mask: then None is returned, and transformers makes it.
    """
    by_layer = config.model_type in _MASK_BY_LAYER and config._attn_implementation == "sdpa"
    if not by_layer or getattr(config, "use_bidirectional_attention", False):
        return None
    if "sliding_attention" in config.layer_types and longest > config.sliding_window:
        return None
    return dict.fromkeys(config.layer_types)


def by_length(lengths: Ints, token_budget: int, order: Ints | None = None) -> list[Ints]:
    """Row numbers in batches, shortest rows first, of at most `token_budget` tokens with padding.

    `lengths` are tokens per row, int (n,). Rows of one length come in `order`. A longer row is a batch of its own.
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


def score_tokens(
    base: BaseModel, rows: Tokens, token_budget: int, advance: Callable[[float], None] | None = None
) -> Floats:
    """Logits float64 (rows,) or, with finer labels, (heads, rows), in the order of `rows`.

    `advance` is called with the number of rows done. When memory runs out, batches are halved. Raises InputError if a
    quarter of the token budget does not fit either.
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
    found: Floats = np.zeros((*heads_shape(base.groups), len(rows)))
    logits, done = [], 0
    with torch.inference_mode():
        for batch in batches:
            logits.append(base.scores([rows[place] for place in batch]))
            done += len(batch)
            if advance:
                advance(done)
        if batches:  # read once at the end, so that a GPU does not wait between batches
            found[..., np.concatenate(batches)] = torch.cat(logits, dim=-1).cpu().double().numpy()
    return found


def fuse_norms(model: Any) -> int:
    """Compute the RMS norms of a frozen Gemma 3 or Qwen3 `model` in one call each, in float32. Returns their number.

    transformers makes about nine calls, which beside short batches cost as much as the matrix products
    (`benchmarks/lora_traffic.py`). Raises ValueError if a norm is trained, because its scale would go stale.
    """
    from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

    count = 0
    for module in model.modules():
        if isinstance(module, Gemma3RMSNorm):
            scale, epsilon = 1 + module.weight.detach().float(), module.eps  # stored as the distance from 1
        elif isinstance(module, Qwen3RMSNorm):
            scale, epsilon = module.weight.detach().float(), module.variance_epsilon
        else:
            continue
        if module.weight.requires_grad:
            raise ValueError("norms that are trained cannot be prepared once")
        module.forward = partial(_norm, scale, float(epsilon))
        count += 1
    return count


def _norm(scale: "Tensor", epsilon: float, inputs: "Tensor") -> "Tensor":
    from torch.nn.functional import rms_norm

    return rms_norm(inputs.float(), scale.shape, scale, epsilon).to(inputs.dtype)


def fuse_adapter(model: Any, name: str) -> int:
    """Let the layers of `model` that have the adapter `name` add its product in place. Returns how many do.

    PEFT writes `B(A(x))`, scales it and adds it: three passes over a tensor as wide as the layer. In bfloat16 one
    rounding replaces three. 4-bit layers and layers with dropout are left to PEFT.
    """
    import torch
    from peft.tuners.lora.layer import Linear

    count = 0
    layers: list[Any] = [module for module in model.modules() if isinstance(module, Linear)]
    for layer in layers:
        layer.__dict__.pop("forward", None)  # of the adapter before
        plain = type(layer.base_layer) is torch.nn.Linear
        if plain and name in layer.lora_A and isinstance(layer.lora_dropout[name], torch.nn.Identity):
            layer.forward = partial(
                _adapted, layer.base_layer, layer.lora_A[name], layer.lora_B[name], layer.scaling[name]
            )
            count += 1
    return count


def _adapted(base: Any, a: Any, b: Any, scale: float, inputs: "Tensor") -> "Tensor":
    # as a matrix, so that the frozen layer's result is no view: in place on a view costs copies in the backward pass
    rows = inputs.reshape(-1, inputs.shape[-1])
    results = base(rows)
    results.addmm_(a(rows), b.weight.t(), alpha=scale)
    return results.view(*inputs.shape[:-1], results.shape[-1])  # type: ignore[no-any-return]
