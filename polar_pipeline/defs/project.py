"""What the definitions are built from: a profile, its task card, and a home. Read from the environment when asked, never at import."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.release import bundled_folder, release_folder
from polar_pipeline.errors import InputError
from polar_pipeline.settings.profile import DEFAULT_PROFILE, FoldSettings, Profile, load_profile
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.storage.home import Home
from polar_pipeline.task.card import TaskCard, load_card

# Raised when a stage's results change though no setting did, so that Dagster shows what is out of date.
STAGE_VERSIONS = {"corpus": 1, "synthesis": 2, "curation": 2, "backbones": 1, "decision": 1, "report": 1}


@dataclass(frozen=True)
class Project:
    """Everything that stays the same while definitions live."""

    profile: Profile
    card: TaskCard
    home: Home

    @classmethod
    def load(cls, profile: str | None = None, environment: Mapping[str, str] = os.environ) -> "Project":
        """The profile named here, else $POLAR_PROFILE, else the default one; the home from $POLAR_HOME."""
        settings = load_profile(profile or environment.get("POLAR_PROFILE") or DEFAULT_PROFILE)
        return cls(settings, load_card(settings.task), Home.from_environment(environment))

    @property
    def data(self) -> Path:
        """The folder with train/, dev/ and test/. Raises InputError with the remedy when there is none."""
        return bundled_folder() if self.profile.data == "bundled" else release_folder(self.home, os.environ)

    def posts(self, language: str, folds: FoldSettings | None = None) -> pd.DataFrame:
        """The posts of one language with their folds; `folds` are the profile's unless given. Raises InputError."""
        posts = read_posts(self.data, language, self.card)
        return assign_folds(posts, folds or self.profile.folds, self.profile.seed)

    def code_version(self, stage: str, *settings: str) -> str:
        """Short fingerprint of a stage's version, the task card, and the settings that its assets depend on."""
        chosen = self.profile.model_dump(mode="json", include=set(settings) | {"seed", "data", "task"})
        return fingerprint([STAGE_VERSIONS[stage], chosen, self.card.model_dump(mode="json")])[:12]

    def check_languages(self, languages: tuple[str, ...]) -> list[str]:
        """Codes in the profile's order, heaviest first. Raises InputError for one that the profile does not have."""
        for code in languages:
            if code not in self.profile.codes:
                raise InputError(
                    f"language {code!r} is not in profile {self.profile.name!r}: use one of {', '.join(sorted(self.profile.codes))}."
                )
        return [code for code in self.profile.codes if code in languages]
