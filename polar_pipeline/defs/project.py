"""What the definitions are built from: a profile, its task card, and a home. Read from the environment when asked, never at import."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.release import release_folder, release_sha256
from polar_pipeline.corpus.sample import bundled_folder
from polar_pipeline.errors import InputError
from polar_pipeline.settings.profile import DEFAULT_PROFILE, Profile, load_profile
from polar_pipeline.storage.home import Home, Results
from polar_pipeline.task.card import TaskCard, load_card


@dataclass(frozen=True)
class Project:
    """Everything that stays the same while definitions live. `source` is the profile's name or path as it was given."""

    profile: Profile
    card: TaskCard
    home: Home
    source: str = DEFAULT_PROFILE

    @classmethod
    def load(cls, profile: str | None = None, environment: Mapping[str, str] = os.environ) -> "Project":
        """The profile named here, else $POLAR_PROFILE, else the default one; the home from $POLAR_HOME."""
        source = profile or environment.get("POLAR_PROFILE") or DEFAULT_PROFILE
        settings = load_profile(source)
        return cls(settings, load_card(settings.task), Home.from_environment(environment), source)

    @property
    def results(self) -> Results:
        """Where this profile's results lie."""
        return self.home.results(self.profile.name)

    @property
    def codes(self) -> list[str]:
        """The profile's languages, heaviest first."""
        return self.profile.codes

    @property
    def data(self) -> Path:
        """The folder with train/, dev/ and test/. Raises InputError with the remedy when there is none."""
        return bundled_folder() if self.profile.data == "bundled" else release_folder(self.home, os.environ)

    def release_sha256(self, code: str) -> dict[str, str]:
        """sha256 of a language's files, by their path in the release."""
        return release_sha256(self.data, code)

    def posts(self, code: str) -> pd.DataFrame:
        """The posts of a language with their folds. Raises InputError that names file and row."""
        return assign_folds(read_posts(self.data, code, self.card), self.profile.folds, self.profile.seed)

    def check_languages(self, languages: tuple[str, ...]) -> list[str]:
        """Codes in the profile's order, heaviest first. Raises InputError for one that the profile does not have."""
        for code in languages:
            if code not in self.codes:
                raise InputError(
                    f"language {code!r} is not in profile {self.profile.name!r}: use one of {', '.join(sorted(self.codes))}."
                )
        return [code for code in self.codes if code in languages]
