"""Frozen encoders: texts in, one vector each out, fast on a CPU.

sentence-transformers reads the folder: which modules there are (transformer, pooling, dense layers, static embeddings),
prompts and length. How texts become batches is ours. Padding is what random batches cost most, so texts are sorted by
length. And a text's vector must not depend on what it was embedded with, or two runs would not give the same bytes:
matrix products round differently for other numbers of rows. So all batches of one length have one shape, filled up.
"""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats, Ints
from polar_pipeline.pretrained.encoder_loading import fastest_precision, load_model
from polar_pipeline.pretrained.model_files import HASHES, folder_identity, local_folder, pick_device, position_limit
from polar_pipeline.settings.models import Encoding
from polar_pipeline.storage.fingerprint import fingerprint

VERSION = 1  # raised when the same model and settings give other vectors
ENCODED_TOGETHER = 2048  # texts: what is lost at most when a process is killed
_STEP = 8  # lengths are rounded up to multiples of so many tokens
_TOKENS = 1024  # of a batch, its padding included; more is no faster


class Encoder:
    """A pretrained encoder. It is loaded when it first embeds."""

    def __init__(self, encoding: Encoding, bases: Path, say: Callable[[str], None] | None = None) -> None:
        """`bases` is the folder where hashes of model files are kept and tiny models are built."""
        self.encoding, self._bases, self._say = encoding, bases, say

    @cached_property
    def identity(self) -> str:
        """sha256 of what a vector depends on beside its text. Raises InputError if the model cannot be had."""
        chosen = self.encoding
        model = folder_identity(self._folder, self._bases / HASHES)
        settings = [chosen.prompt, chosen.pooling, chosen.layers, chosen.max_length, self.precision]
        return fingerprint([VERSION, model, *settings])

    @cached_property
    def precision(self) -> str:
        """What it computes in. auto: bfloat16 or int8 where the processor has instructions for it, else float32."""
        return self.encoding.precision if self.encoding.precision != "auto" else fastest_precision(self.device)

    @cached_property
    def device(self) -> str:
        """cpu, cuda or mps. Raises InputError when another one is asked for than is there."""
        chosen = self.encoding
        automatic = "cpu" if chosen.precision == "int8" and chosen.device == "auto" else chosen.device
        return pick_device(automatic, chosen.source.used_by)

    def embed(self, texts: list[str], advance: Callable[[float], None] | None = None) -> Floats:
        """Vectors, float32 (texts, dimensions); `advance` is called with the number of texts done."""
        import torch

        model = self._model
        if self.device == "cpu":
            torch.set_num_threads(self.encoding.threads)
        with torch.inference_mode():
            if not hasattr(model[0], "auto_model"):  # static embeddings, which have no batches to care for
                found: Floats = model.encode(texts, prompt=self._prompt, show_progress_bar=False).astype(np.float32)
                return found
            return self._embed(self._tokens(texts), advance)

    def _embed(self, rows: list[Ints], advance: Callable[[float], None] | None) -> Floats:
        found: Floats = np.zeros((len(rows), self._dimensions), dtype=np.float32)
        done = 0
        for batch, length in equal_batches(np.array([len(row) for row in rows], dtype=np.int64)):
            length = min(length, self._longest)
            # one row is always filling, so that every batch of short rows has a mask; a long row is alone
            size = _TOKENS // length + 1 if length <= _TOKENS // 2 else 1
            ids = np.full((size, length), self._padding, dtype=np.int64)
            mask = np.zeros((size, length), dtype=np.int64)
            mask[:, 0] = 1
            for place, row in enumerate(batch):
                ids[place, : len(rows[row])], mask[place, : len(rows[row])] = rows[row], 1
            found[batch] = self._forward(ids, mask)[: len(batch)]
            done += len(batch)
            if advance:
                advance(done)
        return found

    def _forward(self, ids: Any, mask: Any) -> Any:
        """Vectors float32 (rows, dimensions) of one batch."""
        import torch

        transformer, *others = self._model
        features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        features = transformer({name: value.to(self.device) for name, value in features.items()})
        if self._prompt:
            features["prompt_length"] = self._prompt_tokens
        hidden = [features["all_layer_embeddings"][layer] for layer in self.encoding.layers]
        parts = [self._pooled(features, tokens, others[:1]) for tokens in hidden]
        parts.append(self._pooled(features, features["token_embeddings"], others))
        return np.concatenate(parts, axis=1)

    def _pooled(self, features: dict[str, Any], tokens: Any, modules: list[Any]) -> Any:
        """Vectors float32 (rows, dimensions) of a layer's tokens (rows, length, width), after these modules."""
        found = features | {"token_embeddings": tokens.float()}
        for module in modules:
            found = module(found)
        return found["sentence_embedding"].float().cpu().numpy()

    def _tokens(self, texts: list[str]) -> list[Ints]:
        """Token ids of each text with its prompt, int64 (tokens,), cut at what the model takes."""
        if self._model[0].do_lower_case:
            texts = [text.lower() for text in texts]
        if not texts:
            return []
        whole = [self._prompt + text for text in texts]
        found = self._model.tokenizer(whole, truncation=True, max_length=self._longest, split_special_tokens=True)
        return [np.array(row or [self._padding], dtype=np.int64) for row in found["input_ids"]]

    @cached_property
    def _longest(self) -> int:
        """The most tokens of a text: of the settings, the folder and the model's positions, the fewest."""
        model = self._model[0].auto_model
        limits = [self._model.max_seq_length, self.encoding.max_length, position_limit(model.config.get_text_config())]
        for name, table in model.named_modules():
            # RoBERTa and its like count positions from the one after the padding's
            if name.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None:
                limits.append(table.num_embeddings - table.padding_idx - 1)
        return int(min(limit for limit in limits if limit))

    @cached_property
    def _prompt(self) -> str:
        """The prompt of the settings, or the one that the folder has for all texts or for classification."""
        if self.encoding.prompt is not None:
            return self.encoding.prompt
        known = {name.lower(): text for name, text in (self._model.prompts or {}).items()}
        return str(known.get((self._model.default_prompt_name or "classification").lower(), ""))

    @cached_property
    def _prompt_tokens(self) -> int:
        """How many tokens the prompt takes, without a token that ends a text."""
        ids = self._model.tokenizer(self._prompt)["input_ids"]
        ends = (self._model.tokenizer.sep_token_id, self._model.tokenizer.eos_token_id)
        return len(ids) - int(bool(ids) and ids[-1] in ends)

    @cached_property
    def _padding(self) -> int:
        return int(self._model.tokenizer.pad_token_id or 0)

    @cached_property
    def _dimensions(self) -> int:
        return int(self._forward(np.array([[self._padding, 0]]), np.array([[1, 0]])).shape[1])

    @cached_property
    def _folder(self) -> Path:
        return local_folder(self.encoding.source, self._bases, self._say)

    @cached_property
    def _model(self) -> Any:
        model, layers = load_model(self._folder, self.encoding, self.device, self.precision), self.encoding.layers
        if layers:
            config: Any = getattr(getattr(model[0], "auto_model", None), "config", None)
            count = config.get_text_config().num_hidden_layers
            if max(layers) > count:
                raise InputError(
                    f"{self.encoding.source.used_by} asks for layer {max(layers)} and its model has {count}: "
                    f"name layers from 1 to {count}."
                )
            config.output_hidden_states = True
        return model


def cache_file(encoding: Encoding) -> str:
    """The file, in the folder of embeddings, with the vectors of an encoding."""
    source = [encoding.source.model, encoding.source.revision]
    how = [encoding.prompt, encoding.pooling, encoding.layers, encoding.max_length, encoding.precision]
    return f"{fingerprint([source, how])[:16]}.sqlite"


def equal_batches(lengths: Ints) -> list[tuple[Ints, int]]:
    """Row numbers of each batch, shortest rows first, and the length that the batch is padded to.

    `lengths` are tokens per row, int (n,). A batch has at most 1,024 tokens, but at least one row.
    """
    padded = -(-lengths // _STEP) * _STEP
    batches: list[tuple[Ints, int]] = []
    for length in np.unique(padded).tolist():
        rows, size = np.flatnonzero(padded == length), max(_TOKENS // length, 1)
        batches += [(rows[start : start + size], length) for start in range(0, len(rows), size)]
    return batches
