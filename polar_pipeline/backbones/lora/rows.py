"""What one model is fitted on and watched by: tokens, labels and weights of rows. What does not belong here: tensors."""

from typing import NamedTuple

import numpy as np

from polar_pipeline.backbones.lora.base_model import Tokens
from polar_pipeline.metrics.scores import Floats, Ints

Mask = np.typing.NDArray[np.bool_]


class Rows(NamedTuple):
    """Rows of one language."""

    tokens: Tokens
    labels: Ints  # 0/1
    synthetic: Mask

    def take(self, which: "Mask | Ints") -> "Rows":
        """Some of them, by mask or number."""
        places = np.flatnonzero(which) if which.dtype == bool else which
        return Rows([self.tokens[place] for place in places], self.labels[places], self.synthetic[places])

    @property
    def lengths(self) -> Ints:
        """Tokens a row."""
        return np.array([len(row) for row in self.tokens], dtype=np.int64)


class Fit(NamedTuple):
    """One model's task: what it learns from, what it is watched by, and where its random numbers start."""

    title: str  # such as "deu fold 1 of 5"
    key: str  # such as "fold-0-seed-0"
    rows: Rows
    weights: Floats  # of `rows`
    watch: Rows | None  # never fitted on; early stopping may look at it
    seed: int
    origin: str = ""  # fingerprint of all that the model is made of: settings, posts and base
