"""Settings of a backbone: which model it is, and how it is trained. A profile has one entry per backbone."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from polar_pipeline.settings.models import Encoding, ModelSource, Pooling, Precision
from polar_pipeline.settings.yaml_files import Settings

LONGEST_NGRAM = 10


def _lengths(value: Any) -> Any:
    """The value, if it is [shortest, longest] or null for none. Raises ValueError otherwise."""
    whole = isinstance(value, list | tuple) and all(type(one) is int for one in value) and len(value) == 2
    if value is not None and not (whole and 1 <= value[0] <= value[1] <= LONGEST_NGRAM):
        raise ValueError(
            f"write the shortest and the longest length, from 1 to {LONGEST_NGRAM}, such as [1, 3], or null for none"
        )
    return value


Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z][a-z0-9_]*$",
        description="The name that its assets begin with: NAME_adapter, NAME_dev_probabilities.",
    ),
]
Languages = Annotated[
    Literal["all"] | tuple[str, ...],
    Field(description="Languages that it takes part in: all of the profile, or a list of codes."),
]
Lengths = Annotated[tuple[int, int] | None, BeforeValidator(_lengths)]
Final = Literal["retrain", "fold_average"]


class LinearSettings(Settings):
    """The backbone that needs no pretrained weights."""

    name: Name = "linear"
    kind: Literal["linear"] = "linear"
    """n-grams and a linear model; no pretrained weights, no GPU."""
    final: Final = "retrain"
    """What scores the posts outside the folds, such as test. retrain: one model fitted on all rows in folds, which
    has seen 25% more posts than a fold's model. fold_average: the mean of the folds' models, at as many times the
    size. Both score the same on dev (docs/folds.md).
    """
    words: Lengths = (1, 2)
    """Shortest and longest n-grams of words that are counted, lower-cased; null counts none."""
    characters_in_words: Lengths = (1, 6)
    """Shortest and longest n-grams of characters inside words, lower-cased; null counts none. Leaving them out
    costs 0.0035 macro-F1 out of fold.
    """
    cased_characters: Lengths = (1, 5)
    """Shortest and longest n-grams of all characters, across words and as they are written; null counts none.
    Leaving them out costs 0.0023 macro-F1 out of fold.
    """
    shares: tuple[float, float, float] = (0.8, 1.0, 1.0)
    """Weights of words, characters_in_words and cased_characters: near equal is best out of fold."""
    surface_share: float = Field(default=0.03, ge=0)
    """Weight of length, casing and punctuation beside the n-grams: +0.003 macro-F1 out of fold; more adds nothing."""
    regularisation: float = Field(default=0.5, gt=0)
    """Inverse of scikit-learn's C. Values from 0.2 to 1.0 differ by 0.002 macro-F1 out of fold, 0.5 is the best of
    them.
    """

    @property
    def counted(self) -> tuple[bool, bool, bool]:
        """Which kinds of n-grams are counted, in the order of `shares`."""
        return self.words is not None, self.characters_in_words is not None, self.cased_characters is not None

    @model_validator(mode="after")
    def _something_counts(self) -> "LinearSettings":
        if not any(self.counted):
            raise ValueError(
                "words, characters_in_words and cased_characters are all null: give one of them its lengths"
            )
        weights = [share for share, counted in zip(self.shares, self.counted, strict=True) if counted]
        if min(self.shares) < 0 or not sum(weights):
            raise ValueError(
                f"shares should be at least 0, and one above 0 for n-grams that are counted, not {list(self.shares)}"
            )
        return self


class ImportedSettings(Settings):
    """Scores that were made elsewhere."""

    name: Name
    kind: Literal["imported"]
    """Scores of a model that was trained elsewhere, read from a file."""
    path: str
    """A .parquet or .csv file with the columns language, split, fold, id and logit or probability, or `columns`. It
    may have the columns backbone, head and seed too, as the scores tables of this package; each head is a member.
    """
    columns: tuple[str, ...] = ()
    """Columns of the file with one logit per fine label, such as the types of the task card, in place of logit and
    probability. A post is positive exactly if one of its fine labels is, so the score is their log-sum-exp: a smooth
    maximum.
    """
    backbone: str | None = None
    """Which model's scores, where the file has a column `backbone` with several. null: the only one."""
    languages: Languages = "all"
    pooled: bool = False
    """Whether the model was trained on all languages together, which decision.shift_response: pooled asks."""

    @field_validator("columns")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"columns should differ, these do not: {', '.join(value)}")
        return value


class PretrainedSettings(Settings):
    """What backbones over a pretrained model share."""

    name: Name
    model: str = Field(min_length=1)
    revision: str = "main"
    """A branch, tag or commit of the hub. Name a commit so that nothing changes under you."""
    languages: Languages = "all"
    threads: int = Field(default=1, ge=1)
    """CPU threads. One gives the same bytes at any number of jobs."""

    @property
    def untrained(self) -> bool:
        """Whether the model is a tiny model with random weights, which only shows the path."""
        return self.source.tiny

    @property
    def source(self) -> ModelSource:
        """The model, as messages name it."""
        return ModelSource(self.model, self.revision, f"backbone {self.name!r}")


class LoraSettings(PretrainedSettings):
    """A pretrained model with one adapter per language, or fine-tuned whole."""

    kind: Literal["lora"]
    """A pretrained model with adapters, or fine-tuned whole."""
    model: str = Field(min_length=1)
    """A model's name on the hub, or its folder: Gemma 3, Qwen3, Qwen2, Llama, Mistral, XLM-RoBERTa, RoBERTa, BERT,
    DeBERTa-v2 and v3, or ModernBERT. tiny: and a type (tiny:gemma3) builds a small one with random weights, which
    only shows the path.
    """
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where it runs. auto: a GPU where there is one, else the CPU. cpu, cuda, mps (Apple's GPU): there and nowhere
    else.
    """
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """Type of the frozen weights. auto: bfloat16 on a GPU from Ampere on, float32 elsewhere. bfloat16 halves the
    memory of float32. float16 is not offered, because Gemma 3 overflows in it.
    """
    four_bit: bool = False
    """Whether frozen weights are stored in 4 bits, as NF4 (Dettmers et al. 2023): a quarter of the memory, and
    slower.
    """
    tuning: Literal["lora", "full"] = "lora"
    """What is trained. lora: low-rank adapters beside frozen weights. full: all weights of a small model."""
    rank: int = Field(default=16, ge=1, le=512)
    """Rank of the adapters. 8 to 256 differ little once all layers have one (Dettmers et al. 2023, figure 4)."""
    alpha: int = Field(default=32, ge=1)
    """Adapters are scaled by alpha / rank, which acts much like the learning rate (Hu et al. 2021, section 4.1)."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout in the adapters. 0.05 costs 43% more activations, and three epochs need no more regularisation than
    the rank.
    """
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """Layers with an adapter: all-linear, or a list of names. Adapters on every linear layer matter more than their
    rank (Dettmers et al. 2023, figure 2).
    """
    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    """Highest learning rate. Dettmers et al. (2023, table 9) use 2e-4 up to 13B and 1e-4 above."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the rate falls after the warm-up. linear and cosine: to 0, along that curve. constant: not at all. linear
    is the default of libraries, and needs no choice.
    """
    warm_up: float = Field(default=0.06, ge=0, lt=1)
    """Share of the steps in which the rate rises: enough for Adam to estimate its second moments."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decay of the trained weights. None: an adapter starts at 0 and has few weights."""
    clip: float = Field(default=1.0, gt=0)
    """Norm that gradients are clipped to, per adapter."""
    epochs: int = Field(default=3, ge=1, le=1000)
    """Passes over the training posts. What the runner-up did is not published; LoRA on a few thousand short posts
    has converged after three.
    """
    patience: int | None = Field(default=None, ge=1)
    """Epochs without a lower loss on dev after which training ends; null never ends early. It needs dev outside the
    folds (folds.fit_on: train).
    """
    max_length: int = Field(default=256, ge=8, le=8192)
    """Tokens of a post; longer posts are cut, at the model's own limit where that is lower."""
    token_budget: int = Field(default=2048, ge=8)
    """Tokens of a batch, padding included. 2,000 to 4,000 keep a GPU busy, about 40 posts a step. With four_bit on
    a GPU of 24 GB: 1024.
    """
    accumulate: int = Field(default=1, ge=1)
    """Batches whose gradients are summed before a step."""
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    """cross_entropy, or focal (Lin et al. 2017), which counts easy posts less, for skewed languages."""
    focal_gamma: float = Field(default=2.0, ge=0)
    """How much less the focal loss counts easy posts: the value that its authors found best."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: both classes weigh the same in the loss. none: every post does; the threshold is chosen out of
    fold, which answers skew without distorting probabilities.
    """
    heads: Literal["label", "all"] = "label"
    """What is learned. label: the label alone. all: the finer labels of the task card as well, which together weigh
    as much as the label; each group of them, such as types, then gives a score of its own.
    """
    synthetic: Literal["mixed", "warm_up"] = "mixed"
    """How synthetic posts are trained on. mixed: among the real ones. warm_up: in an epoch of their own before the
    real ones.
    """
    synthetic_weight: float = Field(default=1.0, ge=0)
    """Weight of a mixed synthetic post in the loss, where a real one has 1."""
    recompute: Literal["auto", "never", "always"] = "auto"
    """Whether the backward pass computes layers again, which saves memory and takes half as much time again. auto:
    only where memory would not hold them. never, always: as they say.
    """
    final: Final = "retrain"
    """What scores the posts outside the folds, such as test. retrain: one model fitted on all rows in folds.
    fold_average: the mean of the folds' models.
    """
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Seeds, one model each. Their scores are averaged."""
    scope: Literal["language", "family", "pooled"] = "language"
    """language: an adapter per language. pooled: one adapter for all languages, trained on all their posts, each
    after the name of its language. family: the same for each family of languages, such as Indo-Aryan.
    """
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    """Seconds between checkpoints: what a killed process loses at most."""

    @model_validator(mode="after")
    def _fits_together(self) -> "LoraSettings":
        if self.token_budget < self.max_length:
            raise ValueError(f"token_budget {self.token_budget} holds no row of max_length {self.max_length}: raise it")
        if self.tuning == "full" and self.four_bit:
            raise ValueError("four_bit weights cannot be trained themselves: set tuning to lora, or four_bit to false")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds should differ, these do not: {', '.join(map(str, self.seeds))}")
        return self


class EncoderSettings(PretrainedSettings):
    """Embeddings of a frozen pretrained encoder, and a head per language."""

    kind: Literal["encoder"]
    """A pretrained encoder that stays as it is, and a small model per language over its embeddings; no GPU needed."""
    model: str = Field(min_length=1)
    """A model's name on the hub, or its folder: a sentence-transformers model, any encoder of transformers, or
    model2vec. Only safetensors are read. tiny: and a type builds a small one with random weights.
    """
    prompt: str | None = None
    """What is put before every text. null: what the model's folder says, if anything."""
    pooling: Pooling = "auto"
    """How tokens become one vector. auto: as the model's folder says, else their mean. mean, cls, last_token, max: that
    one.
    """
    layers: tuple[int, ...] = ()
    """Layers, from 1, whose tokens are pooled as well; their vectors are put before that of the last one. Middle
    layers hold what the last one forgets.
    """
    max_length: int | None = Field(default=None, ge=8)
    """Tokens of a text; longer texts are cut. null: as many as the model takes."""
    precision: Precision = "auto"
    """What it computes in. auto: bfloat16 or int8 where the processor has instructions for it, else float32.
    The others: that one everywhere.
    """
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where it runs. auto: a GPU where there is one, else the CPU. cpu, cuda, mps: there and nowhere else."""
    head: Literal["kernel", "logistic"] = "kernel"
    """What is fitted over the embeddings. kernel: kernel ridge regression with a Gaussian kernel. logistic:
    logistic regression.
    """
    widths: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(0.5,), min_length=1)
    """Widths of the kernel: its gamma times the number of dimensions. Of several, the best on held-out training rows
    is taken. Without use for logistic regression.
    """
    penalties: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(1.0,), min_length=1)
    """How strongly weights are kept small. Of several, the best on held-out training rows is taken."""
    final: Final = "retrain"
    """What scores the posts outside the folds, such as test. retrain: one head fitted on all rows in folds.
    fold_average: the mean of the folds' heads, at as many times the size.
    """

    @property
    def encoding(self) -> Encoding:
        """How texts become vectors."""
        how = (self.prompt, self.pooling, self.layers, self.max_length, self.precision, self.device, self.threads)
        return Encoding(self.source, *how)

    @model_validator(mode="after")
    def _fits_together(self) -> "EncoderSettings":
        if self.precision == "int8" and self.device in ("cuda", "mps"):
            raise ValueError(f"precision int8 is computed on a CPU: set device to auto or cpu, not {self.device}")
        return self

    @field_validator("layers")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(layer < 1 for layer in value) or list(value) != sorted(set(value)):
            raise ValueError(f"name layers from 1, each once and in their order, not {list(value)}")
        return value


BackboneSettings = LinearSettings | ImportedSettings | LoraSettings | EncoderSettings
