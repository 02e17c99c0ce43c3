"""Settings of a backbone: which model it is, and how it is trained. A profile has one entry per backbone.

Every default has its reason or source in the bundled profiles and `docs/lora.md`. What does not belong here: anything that trains.
"""

from typing import Literal

from pydantic import Field, model_validator

from polar_pipeline.settings.base import Settings

TINY = "tiny:"  # a model that is built in place, such as tiny:gemma3


class LinearSettings(Settings):
    """The backbone that needs no pretrained weights."""

    name: str = Field(default="linear", pattern=r"^[a-z][a-z0-9_]*$")
    kind: Literal["linear"] = "linear"
    final: Literal["retrain", "fold_average"] = "retrain"
    shares: tuple[float, float, float] = (0.8, 1.0, 1.0)
    surface_share: float = Field(default=0.03, ge=0)
    regularisation: float = Field(default=0.5, gt=0)


class ImportedSettings(Settings):
    """Scores that were made elsewhere."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: Literal["imported"]
    path: str
    backbone: str | None = None
    languages: Literal["all"] | tuple[str, ...] = "all"
    pooled: bool = False


class LoraSettings(Settings):
    """A pretrained model with one adapter per language, or fine-tuned whole."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    kind: Literal["lora"]
    model: str = Field(min_length=1)
    revision: str = "main"
    languages: Literal["all"] | tuple[str, ...] = "all"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(default=1, ge=1)
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    four_bit: bool = False
    tuning: Literal["lora", "full"] = "lora"
    rank: int = Field(default=16, ge=1, le=512)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warm_up: float = Field(default=0.06, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, gt=0)
    epochs: int = Field(default=3, ge=1, le=1000)
    patience: int | None = Field(default=None, ge=1)
    max_length: int = Field(default=256, ge=8, le=8192)
    token_budget: int = Field(default=2048, ge=8)
    accumulate: int = Field(default=1, ge=1)
    loss: Literal["cross_entropy", "focal"] = "cross_entropy"
    focal_gamma: float = Field(default=2.0, ge=0)
    class_weights: Literal["none", "balanced"] = "none"
    synthetic: Literal["mixed", "warm_up"] = "mixed"
    synthetic_weight: float = Field(default=1.0, ge=0)
    recompute: Literal["auto", "never", "always"] = "auto"
    final: Literal["retrain", "fold_average"] = "retrain"
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    scope: Literal["language", "pooled"] = "language"
    checkpoint_seconds: float = Field(default=60.0, ge=0)

    @property
    def untrained(self) -> bool:
        """Whether the base is a tiny model with random weights, which only shows the path."""
        return self.model.startswith(TINY)

    @model_validator(mode="after")
    def _fits_together(self) -> "LoraSettings":
        if self.token_budget < self.max_length:
            raise ValueError(f"token_budget {self.token_budget} holds no row of max_length {self.max_length}: raise it")
        if self.tuning == "full" and self.four_bit:
            raise ValueError("four_bit weights cannot be trained themselves: set tuning to lora, or four_bit to false")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds should differ, these do not: {', '.join(map(str, self.seeds))}")
        return self


BackboneSettings = LinearSettings | ImportedSettings | LoraSettings
