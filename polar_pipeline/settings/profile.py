"""The profile: every setting of a run, in one validated YAML file. It says how the task card is solved.

Bundled profiles lie in `polar_pipeline/profiles`; one's own is a path to a file like them. What does not belong here:
keys and addresses of services (environment), and paths (POLAR_HOME, POLAR_DATA_DIR).
"""

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import BackboneSettings, ImportedSettings, LinearSettings, LoraSettings
from polar_pipeline.settings.base import Settings, read_settings
from polar_pipeline.settings.synthesis import CurationSettings, SynthesisSettings
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.task.languages import LANGUAGES, heaviest_first, language

DEFAULT_PROFILE = "cpu"
STRATEGIES = ("equal", "simplex", "ridge")  # of combining several backbones; one alone goes by its name


class FoldSettings(Settings):
    """How rows are held out. No folds: nothing is scored out of fold, and decisions are made on dev alone."""

    count: int = Field(default=5, ge=0, le=20)
    fit_on: Literal["train", "train+dev"] = "train+dev"

    @field_validator("count")
    @classmethod
    def _not_one(cls, value: int) -> int:
        if value == 1:
            raise ValueError("one fold leaves nothing to train on, use 0 or at least 2")
        return value


class DecisionSettings(Settings):
    """How members' scores become one decision."""

    strategy: str = Field(default="simplex", pattern=r"^[a-z][a-z0-9_]*$")
    departures: bool = True
    threshold: Literal["half", "argmax", "bagged", "plug_in"] = "bagged"
    resamples: int = Field(default=200, ge=1, le=10_000)
    review_share: float = Field(default=0.1, ge=0, lt=1)
    transductive: bool = True
    shift_response: Literal["none", "rate_matching", "pooled"] = "rate_matching"
    shift_response_auc: float = Field(default=0.8, gt=0.5, le=1.0)


class ReportSettings(Settings):
    """How the evidence is measured."""

    resamples: int = Field(default=2000, ge=100, le=100_000)
    shift_auc_warning: float = Field(default=0.6, gt=0.5, le=1.0)
    imbalance_warning: float = Field(default=0.8, ge=0.5, le=1.0)
    error_examples: int = Field(default=4, ge=0, le=50)


class Profile(Settings):
    """One run's settings."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    description: str
    task: str = "polar"
    data: Literal["release", "bundled"] = "release"
    languages: Literal["all"] | tuple[str, ...] = "all"
    seed: int = Field(default=0, ge=0, lt=2**31)
    folds: FoldSettings = FoldSettings()
    backbones: tuple[Annotated[BackboneSettings, Field(discriminator="kind")], ...] = Field(
        default=(LinearSettings(),), min_length=1
    )
    synthesis: SynthesisSettings = SynthesisSettings()
    curation: CurationSettings = CurationSettings()
    decision: DecisionSettings = DecisionSettings()
    report: ReportSettings = ReportSettings()

    @field_validator("languages")
    @classmethod
    def _known_languages(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for code in () if value == "all" else value:
            language(code)
        if value != "all" and (not value or len(set(value)) != len(value)):
            raise ValueError("name at least one language, each once, or `all`")
        return value

    @model_validator(mode="after")
    def _known_strategy(self) -> "Profile":
        known = [*STRATEGIES, *(backbone.name for backbone in self.backbones)]
        if self.decision.strategy not in known:
            raise ValueError(f"decision.strategy {self.decision.strategy!r} is none of {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _second_look_needs_an_endpoint(self) -> "Profile":
        if (self.curation.round_trip or self.curation.judge) and self.synthesis.source != "endpoint":
            raise ValueError(
                "curation.round_trip and curation.judge ask the endpoint: set synthesis.source to endpoint"
            )
        return self

    @model_validator(mode="after")
    def _round_trip_compares_meaning(self) -> "Profile":
        if self.curation.round_trip is not None and self.curation.embedder == "ngrams":
            raise ValueError(
                "curation.round_trip compares meaning, which embedder: ngrams does not see: "
                "set curation.embedder to a sentence-transformers model or api:NAME, or curation.round_trip to null"
            )
        return self

    @model_validator(mode="after")
    def _folds_for_all(self) -> "Profile":
        needy = [entry.name for entry in self.backbones if _needs_folds(entry)]
        if self.folds.count == 0 and needy:
            raise ValueError(
                f"folds.count: 0 leaves nothing to average or hold out for {', '.join(needy)}, it needs at least 2"
            )
        return self

    @model_validator(mode="after")
    def _synthetic_posts_need_folds(self) -> "Profile":
        if self.folds.count == 0 and self.synthesis.source != "none":
            raise ValueError(
                f"synthesis.source {self.synthesis.source} makes posts of those in folds, and folds.count is 0: "
                "set synthesis.source to none, or folds.count to at least 2"
            )
        return self

    @model_validator(mode="after")
    def _languages_of_backbones(self) -> "Profile":
        for place, entry in enumerate(self.backbones):
            chosen = "all" if isinstance(entry, LinearSettings) else entry.languages
            if chosen == "all":
                continue
            wrong = sorted(set(chosen) - set(self.codes))
            if wrong or not chosen:
                raise ValueError(
                    f"backbones.{place} ({entry.name}): languages names {', '.join(wrong) or 'none'}, "
                    f"use all or some of the profile's: {', '.join(sorted(self.codes))}"
                )
        return self

    @model_validator(mode="after")
    def _stopping_is_not_judging(self) -> "Profile":
        early = [entry.name for entry in self.backbones if isinstance(entry, LoraSettings) and entry.patience]
        if early and self.folds.fit_on != "train" and self.folds.count:
            raise ValueError(
                f"patience of {', '.join(early)} needs dev posts outside the folds: set folds.fit_on to train"
            )
        return self

    @field_validator("backbones")
    @classmethod
    def _names_once(cls, value: tuple[BackboneSettings, ...]) -> tuple[BackboneSettings, ...]:
        names = [backbone.name for backbone in value]
        if taken := sorted(set(names) & set(STRATEGIES)):
            raise ValueError(f"{taken[0]!r} is the name of a strategy, give the backbone another")
        if len(set(names)) != len(names):
            raise ValueError(f"backbone names should differ, these do not: {', '.join(names)}")
        return value

    @property
    def codes(self) -> list[str]:
        """The profile's languages, heaviest first."""
        return heaviest_first(tuple(LANGUAGES) if self.languages == "all" else tuple(self.languages))

    @property
    def pooled_backbones(self) -> frozenset[str]:
        """Names of those backbones that were trained on all languages together."""
        return frozenset(
            entry.name
            for entry in self.backbones
            if (isinstance(entry, ImportedSettings) and entry.pooled)
            or (isinstance(entry, LoraSettings) and entry.scope == "pooled")
        )

    @property
    def trains_pooled(self) -> bool:
        """Whether some backbone is trained here on all languages together."""
        return any(isinstance(entry, LoraSettings) and entry.scope == "pooled" for entry in self.backbones)

    @property
    def trains_in_turn(self) -> bool:
        """Whether adapters of all languages should be trained before anything else, one base after the other: those that need a GPU."""
        return any(
            isinstance(entry, LoraSettings) and entry.scope == "language" and entry.device != "cpu"
            for entry in self.backbones
        )

    @property
    def fingerprint(self) -> str:
        """sha256 of all settings but name and description, which change no number."""
        return fingerprint(self.model_dump(mode="json", exclude={"name", "description"}))


def _needs_folds(settings: BackboneSettings) -> bool:
    return isinstance(settings, LinearSettings) or (
        isinstance(settings, LoraSettings) and settings.final == "fold_average"
    )


def load_profile(name_or_path: str = DEFAULT_PROFILE) -> Profile:
    """A bundled profile by its name, or one's own by its path. Raises InputError naming file and setting."""
    bundled = resources.files("polar_pipeline") / "profiles" / f"{name_or_path}.yaml"
    path = Path(str(bundled)) if bundled.is_file() else Path(name_or_path)
    if not path.exists() and path.suffix not in {".yaml", ".yml"}:
        names = ", ".join(bundled_profiles())
        raise InputError(f"profile {name_or_path!r} does not exist: use {names} or the path of a YAML file.")
    return read_settings(path, Profile, what="profile")


def bundled_profiles() -> list[str]:
    """Names of the profiles that ship with the package."""
    folder = resources.files("polar_pipeline") / "profiles"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))
