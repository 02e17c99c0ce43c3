"""The profile: how the task card is solved. Keys and paths are no part of it, they come from the environment."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import (
    BackboneSettings,
    EncoderSettings,
    ImportedSettings,
    LinearSettings,
    LoraSettings,
)
from polar_pipeline.settings.curation import CurationSettings
from polar_pipeline.settings.decision import STRATEGIES, DecisionSettings, FoldSettings, ReportSettings
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.settings.yaml_files import Settings, read_mapping, validated

DEFAULT_PROFILE = "cpu"
_BUNDLED = Path(str(resources.files("polar_pipeline") / "profiles"))


class Profile(Settings):
    """One run's settings."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_-]*$")
    """The name of this profile; left out, it is the name of the file. Profiles with other settings need other
    names.
    """
    description: str = ""
    """What it is for, in a sentence."""
    task: str = "polar"
    """The task card: what is detected. polar, or the path of another card, from the folder of this profile."""
    data: str = Field(default="release", min_length=1)
    """Where posts come from. release: the official data, from POLAR_DATA_DIR or what `polar data fetch` downloaded
    into this home. bundled: the made-up corpus, which needs no download and no licence. Or the path of a file or a
    folder of one's own, from the folder of this profile.
    """
    languages: Literal["all"] | tuple[str, ...] = "all"
    """all: those of the task card. Or a list of codes, such as [deu, swa]."""
    seed: int = Field(default=20260223, ge=0, lt=2**31)
    """Any number; the same seed gives the same bytes."""
    folds: FoldSettings = FoldSettings()
    """How rows are held out."""
    synthesis: SynthesisSettings = SynthesisSettings()
    """Which synthetic posts are made, of what, and for how much."""
    curation: CurationSettings = CurationSettings()
    """Which synthetic posts are kept and trained on."""
    backbones: tuple[Annotated[BackboneSettings, Field(discriminator="kind")], ...] = Field(
        default=(LinearSettings(),), min_length=1
    )
    """The models whose scores decide; any number of linear, encoder, lora and imported ones."""
    decision: DecisionSettings = DecisionSettings()
    """How scores become one decision per language."""
    report: ReportSettings = ReportSettings()
    """How the evidence is measured."""

    @field_validator("languages")
    @classmethod
    def _each_once(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if value != "all" and (not value or len(set(value)) != len(value)):
            raise ValueError("name at least one language, each once, or `all`")
        return value

    @field_validator("backbones")
    @classmethod
    def _names_once(cls, value: tuple[BackboneSettings, ...]) -> tuple[BackboneSettings, ...]:
        names = [backbone.name for backbone in value]
        if taken := sorted(set(names) & set(STRATEGIES)):
            raise ValueError(f"{taken[0]!r} is the name of a strategy, give the backbone another")
        if len(set(names)) != len(names):
            raise ValueError(f"backbone names should differ, these do not: {', '.join(names)}")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "Profile":
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        """Settings that do not go together."""
        known = [*STRATEGIES, *(backbone.name for backbone in self.backbones)]
        if self.decision.strategy not in known:
            yield f"decision.strategy {self.decision.strategy!r} is none of {', '.join(known)}"
        if (self.curation.round_trip or self.curation.judge) and self.synthesis.source != "endpoint":
            yield "curation.round_trip and curation.judge ask the endpoint: set synthesis.source to endpoint"
        if self.curation.round_trip is not None and self.curation.embedder == "ngrams":
            yield (
                "curation.round_trip compares meaning, which embedder: ngrams does not see: "
                "set curation.embedder to a sentence-transformers model or api:NAME, or curation.round_trip to null"
            )
        needy = [entry.name for entry in self.backbones if isinstance(entry, LinearSettings | EncoderSettings)]
        needy += [entry.name for entry in self._loras if entry.final == "fold_average"]
        if self.folds.count == 0 and needy:
            yield f"folds.count: 0 leaves nothing to average or hold out for {', '.join(needy)}, it needs at least 2"
        if self.folds.count == 0 and self.synthesis.source != "none":
            yield (
                f"synthesis.source {self.synthesis.source} makes posts of those in folds, and folds.count is 0: "
                "set synthesis.source to none, or folds.count to at least 2"
            )
        early = [entry.name for entry in self._loras if entry.patience]
        if early and self.folds.fit_on != "train" and self.folds.count:
            yield f"patience of {', '.join(early)} needs dev posts outside the folds: set folds.fit_on to train"

    @property
    def _loras(self) -> list[LoraSettings]:
        return [entry for entry in self.backbones if isinstance(entry, LoraSettings)]

    @property
    def pooled_backbones(self) -> frozenset[str]:
        """Names of those backbones that were trained on all languages together."""
        imported = [entry.name for entry in self.backbones if isinstance(entry, ImportedSettings) and entry.pooled]
        return frozenset([*imported, *(entry.name for entry in self._loras if entry.scope == "pooled")])

    @property
    def trains_pooled(self) -> bool:
        """Whether some backbone is trained here on several languages together, all or families."""
        return any(entry.scope != "language" for entry in self._loras)

    @property
    def trains_in_turn(self) -> bool:
        """Whether adapters of all languages, those on a GPU, are trained first, one base after the other."""
        return any(entry.scope == "language" and entry.device != "cpu" for entry in self._loras)

    @property
    def endpoints(self) -> list[SynthesisSettings]:
        """How each endpoint is reached that the profile asks: to write posts, to verify them, to embed them."""
        synthesis, curation = self.synthesis, self.curation
        asked = [synthesis] if synthesis.source == "endpoint" else []
        asked += [synthesis.at(synthesis.judge)] if curation.judge or curation.round_trip is not None else []
        return asked + ([synthesis.at(synthesis.embeddings)] if curation.embedder.startswith("api:") else [])

    @property
    def fingerprint(self) -> str:
        """Short sha256 of all settings but name and description, by which a reader tells two reports apart."""
        return hashlib.sha256(json.dumps(self._settings(), sort_keys=True).encode()).hexdigest()[:12]

    def differences(self, other: "Profile") -> dict[str, tuple[Any, Any]]:
        """The settings that differ, such as `folds.count`, with both values (None where one has no such setting)."""
        mine, theirs = _flat(self._settings()), _flat(other._settings())
        names = [*mine, *(name for name in theirs if name not in mine)]
        return {name: (mine.get(name), theirs.get(name)) for name in names if mine.get(name) != theirs.get(name)}

    def _settings(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude={"name", "description"})  # they change no number


def _flat(value: Any, place: str = "") -> dict[str, Any]:
    """Nested settings by their dotted path; a list of plain values is one value."""
    parts: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        parts = enumerate(value)
    if not parts:
        return {place: value}
    return {key: leaf for name, part in parts for key, leaf in _flat(part, f"{place}.{name}".strip(".")).items()}


def load_profile(name_or_path: str = DEFAULT_PROFILE) -> Profile:
    """The profile of a bundled name or of a path. Raises InputError that names file and setting."""
    path = profile_path(name_or_path)
    content = read_mapping(path, what="profile")
    if content.get("name") is None:
        content["name"] = name_of_file(path)
    profile = validated(content, Profile, f"profile {path}")
    if path.resolve().parent != _BUNDLED.resolve() and profile.name in bundled_profiles():
        _refuse_other_settings(profile, path)
    return profile


def profile_path(name_or_path: str) -> Path:
    """The file of a bundled profile, or the path as it is. Raises InputError for what is neither."""
    if name_or_path in bundled_profiles():
        return _BUNDLED / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    if not path.exists() and path.suffix not in {".yaml", ".yml"}:
        names = ", ".join(bundled_profiles())
        raise InputError(f"profile {name_or_path!r} does not exist: use {names} or the path of a YAML file.")
    return path


def bundled_profiles() -> list[str]:
    """Names of the profiles that ship with the package."""
    return sorted(file.stem for file in _BUNDLED.glob("*.yaml"))


def name_of_file(path: Path) -> str:
    """The name of a profile that gives none: its file's, in lower-case letters, digits, `_` and `-`.

    Raises InputError for a file whose name does not begin with a letter from a to z once accents are removed.
    """
    if name := _name_of_file(path):
        return name
    raise InputError(
        f"the file name of profile {path} does not begin with a letter from a to z, so no name can be made of it: "
        "rename the file, or give a name in it (`name: my-profile`)."
    )


def _name_of_file(path: Path) -> str:
    plain = unicodedata.normalize("NFKD", path.stem.lower()).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9_-]+", "-", plain).strip("-_")
    return name if re.match("[a-z]", name) else ""


def _refuse_other_settings(profile: Profile, path: Path) -> None:
    """Raises InputError if the bundled profile of this name has other settings: results would pass for its own."""
    changed = list(profile.differences(load_profile(profile.name)))
    if changed:
        names = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
        free = _name_of_file(path) not in {"", *bundled_profiles()}
        raise InputError(
            f"profile {path} has the name of the bundled profile {profile.name!r} and other settings ({names}): "
            f"give it a name of its own (`name:`){', or leave `name` out' if free else ''}."
        )
