"""The posts of one language as tokens, the models to train on them, and the steps of each training.

Batches hold rows of similar length: random batches of short posts compute more than twice the tokens that they hold,
these a few percent more.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.backbones.base import fitted_rows, training_fingerprint
from polar_pipeline.backbones.lora.base_model import BaseModel, Tokens, by_length
from polar_pipeline.backbones.lora.optimizer import row_weights
from polar_pipeline.corpus.posts import REAL
from polar_pipeline.metrics.scores import Floats, Ints, Mask
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.storage.fingerprint import fingerprint, frame_fingerprint
from polar_pipeline.task.card import TaskCard

_BANDS = 16  # of length; another number gives other adapters
_MIN_WEIGHT = 1e-12
_PROBE = 400  # posts whose logits are noted in training and compared with those of the adapter read from disk


class TokenizedRows(NamedTuple):
    """Rows of one language."""

    tokens: Tokens
    labels: Ints  # 0/1
    synthetic: Mask
    finer: Floats | None = None  # finer labels 0/1 (rows, labels), NaN where a row has none; None to learn none
    finer_weight: float = 1.0  # of their mean loss, where the label's is 1

    def take(self, which: "Mask | Ints") -> "TokenizedRows":
        """Some of them, by mask or number."""
        places = np.arange(len(self.labels))[which]
        finer = None if self.finer is None else self.finer[places]
        return TokenizedRows(
            [self.tokens[place] for place in places],
            self.labels[places],
            self.synthetic[places],
            finer,
            self.finer_weight,
        )

    @property
    def lengths(self) -> Ints:
        """Tokens per row."""
        return np.array([len(row) for row in self.tokens], dtype=np.int64)


class TrainingTask(NamedTuple):
    """What one model is trained on, and what it scores right after: the rows held out, or the probe."""

    title: str  # such as "deu fold 1 of 5"
    key: str  # such as "fold-0-seed-0", the name of its folder
    rows: TokenizedRows
    weights: Floats  # of `rows`
    watch: TokenizedRows | None  # never fitted on; early stopping may look at it
    judged: TokenizedRows
    random_seed: int
    seed: int = 0
    fold: int = -1  # the final model

    def tokens(self, settings: LoraSettings) -> int:
        """Real tokens in all steps of the training: how long it takes, before it is planned."""
        once = self.rows.synthetic & (settings.synthetic == "warm_up")
        lengths = self.rows.lengths
        return int(lengths[once].sum() + lengths[~once].sum() * settings.epochs)


class LanguageDataset:
    """The tokenized posts of one language, and the models to train on them.

    `groups` are the columns of the finer labels that are learned too, by group.
    """

    def __init__(
        self,
        posts: pd.DataFrame,
        base: BaseModel,
        settings: LoraSettings,
        title: str,
        seed: int,
        groups: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
        finer_weight: float = 1.0,
    ) -> None:
        self._settings, self._title, self._seed = settings, title, seed
        self._real: Mask = (posts["source"] == REAL).to_numpy(dtype=bool)
        self._folds: Ints = posts["fold"].to_numpy(dtype=int)
        self._fitted = fitted_rows(posts).to_numpy(dtype=bool)
        self._dev = _labelled_dev(posts)
        self._probe = probe_rows(posts)
        labels = posts["label"].fillna(0).to_numpy(dtype=np.int64)
        finer = {
            name: posts[list(columns)].astype("Float64").to_numpy(float, na_value=np.nan)
            for name, columns in groups.items()
        }
        self._has = {name: ~np.isnan(values).all(axis=1) for name, values in finer.items()}
        together = np.concatenate([*finer.values()], axis=1) if finer else None
        self.rows = TokenizedRows(base.tokens(posts["text"].tolist()), labels, ~self._real, together, finer_weight)
        self.in_folds: Mask = self._real & (self._folds >= 0)  # these rows get out-of-fold logits
        self.folds: Ints = self._folds[self.in_folds]  # of those rows

    def held_out(self, fold: int) -> Mask:
        """Real rows of a fold."""
        inside: Mask = self._real & (self._folds == fold)
        return inside

    def learned_groups(self) -> list[str]:
        """Groups of finer labels that all models can learn: each is fitted on a post that has them."""
        folds = {-1, *self.folds.tolist()}
        return [name for name, has in self._has.items() if all(has[self._inside(fold)].any() for fold in folds)]

    def models(self) -> list[TrainingTask]:
        """All of them, folds first. A synthetic post leaves with the fold of the posts that it was made from."""
        folds = sorted(set(self.folds.tolist()))
        final = [] if folds and self._settings.final == "fold_average" else [-1]
        return [self._model(fold, seed, len(folds)) for seed in self._settings.seeds for fold in [*folds, *final]]

    def _model(self, fold: int, seed: int, folds: int) -> TrainingTask:
        final = fold < 0
        key = f"final-seed-{seed}" if final else f"fold-{fold}-seed-{seed}"
        title = f"{self._title} final model" if final else f"{self._title} fold {fold + 1} of {folds}"
        title += f", seed {seed}" if len(self._settings.seeds) > 1 else ""
        rows = self.rows.take(self._inside(fold))
        judged = self.rows.take(self._probe if final else self.held_out(fold))
        weights = row_weights(rows.labels, rows.synthetic, self._settings)
        # the same for all languages: an adapter depends on its own posts alone
        random_seed = int(fingerprint([self._seed, seed, fold])[:8], 16)
        return TrainingTask(title, key, rows, weights, self._watched(fold), judged, random_seed, seed, fold)

    def _inside(self, fold: int) -> Mask:
        """Rows that a fold's model, or the final one, is fitted on."""
        inside: Mask = self._fitted if fold < 0 else self._fitted & (self._folds != fold)
        return inside

    def _watched(self, fold: int) -> TokenizedRows | None:
        """Rows that the model has not seen: dev if it is outside the folds, else what its fold holds out, to look at.

        The profile allows early stopping in the first case alone, so that nothing is judged on what stopped it.
        """
        outside = self._dev & self._real & (self._folds < 0)
        if outside.any():
            return self.rows.take(outside)
        return self.rows.take(self.held_out(fold)) if fold >= 0 else None


def probe_rows(posts: pd.DataFrame) -> Ints:
    """Numbers of the rows that final models score before and after they are saved: of dev, else of the fitted rows."""
    real = (posts["source"] == REAL).to_numpy(dtype=bool)
    rows = np.flatnonzero(_labelled_dev(posts) & real)
    return (rows if len(rows) else np.flatnonzero(real & fitted_rows(posts).to_numpy(dtype=bool)))[:_PROBE]


def _labelled_dev(posts: pd.DataFrame) -> Mask:
    labelled: Mask = (posts["split"] == "dev").to_numpy(dtype=bool) & posts["label"].notna().to_numpy(dtype=bool)
    return labelled


def dataset_fingerprint(posts: pd.DataFrame, card: TaskCard) -> str:
    """sha256 of all posts that make an adapter: the fitted ones, and dev outside folds (it may stop training)."""
    watched = (posts["split"] == "dev") & (posts["fold"] < 0) & posts["label"].notna() & (posts["source"] == REAL)
    fitted = training_fingerprint(posts, card)
    return fingerprint([fitted, frame_fingerprint(posts[watched], ["id", "text", "label"])])


class Step(NamedTuple):
    """One optimizer step: batches of row numbers, whose gradients are summed."""

    batches: tuple[Ints, ...]
    ends_epoch: bool
    warm_up: bool = False  # over synthetic posts, before the real ones


def plan_epochs(lengths: Ints, token_budget: int, accumulate: int, epochs: int, seed: int) -> list[Step]:
    """The optimizer steps of `epochs`; each shuffles which rows share a batch.

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
    """All steps of a training on rows of `lengths` tokens, of which some are `synthetic`, bool (n,).

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


def step_weights(steps: list[Step], weights: Floats) -> Floats:
    """The sum of row `weights` in each step, float (steps,)."""
    sums = [sum(float(weights[batch].sum()) for batch in step.batches) for step in steps]
    return np.maximum(sums, _MIN_WEIGHT)


def loss_divisors(steps: list[Step], weights: Floats) -> Floats:
    """What the summed loss of each step is divided by, float (steps,): the mean weight of its epoch's steps.

    Divided by its own weight, a step of 8 long posts would move the adapter as far as one of 139 short ones.
    """
    sums, ends = step_weights(steps, weights), [place + 1 for place, step in enumerate(steps) if step.ends_epoch]
    found: Floats = np.zeros(len(steps))
    for start, end in zip([0, *ends], ends, strict=False):
        found[start:end] = sums[start:end].mean()
    return found
