"""What the definitions are built from: a profile, its task card, and a home.

Read from the environment when asked, never at import.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.release import bundled_folder, release_folder, release_sha256
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import LinearSettings
from polar_pipeline.settings.decision import FoldSettings
from polar_pipeline.settings.profile import DEFAULT_PROFILE, Profile, bundled_profiles, load_profile, profile_path
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.storage.home import Home, Results
from polar_pipeline.task.card import TaskCard, load_card
from polar_pipeline.task.languages import language, language_codes


@dataclass(frozen=True)
class Project:
    """Everything that stays the same while definitions live. `source` is the profile's name or path as it was given."""

    profile: Profile
    card: TaskCard
    home: Home
    source: str = DEFAULT_PROFILE

    @classmethod
    def load(cls, profile: str | None = None, environment: Mapping[str, str] = os.environ) -> "Project":
        """The profile named here, else $POLAR_PROFILE, else the default one; the home from $POLAR_HOME.

        Raises InputError that names the profile's file and the setting that is wrong, unknown languages included.
        """
        name = profile or environment.get("POLAR_PROFILE") or DEFAULT_PROFILE
        settings = load_profile(name)
        if wrong := list(_wrong_languages(settings)):
            raise InputError(f"profile {profile_path(name)}: {'; '.join(wrong)}.")
        return cls(settings, load_card(settings.task), Home.from_environment(environment), name)

    @property
    def results(self) -> Results:
        """Where this profile's results lie."""
        return self.home.results(self.profile.name)

    @property
    def codes(self) -> list[str]:
        """The profile's languages, heaviest first."""
        return language_codes(self.profile.languages)

    @property
    def data(self) -> Path:
        """The folder with train/, dev/ and test/. Raises InputError with the remedy when there is none."""
        return bundled_folder() if self.profile.data == "bundled" else release_folder(self.home, os.environ)

    def release_sha256(self, code: str) -> dict[str, str]:
        """sha256 of a language's files, by their path in the release."""
        return release_sha256(self.data, code)

    def posts(self, language: str, folds: FoldSettings | None = None) -> pd.DataFrame:
        """The posts of one language with their folds; `folds` are the profile's unless given. Raises InputError."""
        posts = read_posts(self.data, language, self.card)
        return assign_folds(posts, folds or self.profile.folds, self.profile.seed)

    def claim_results(self) -> None:
        """Note in the home which profile file of one's own its results are of.

        Raises InputError if they are those of another file of this name that has other settings.
        """
        if self.source in bundled_profiles():  # a file that has the name of one and other settings cannot be loaded
            return
        path, note, root = profile_path(self.source).resolve(), self.results.settings, self.home.root
        # relative to the home, so that a folder with both can be moved or copied
        owner = json.loads(note.read_bytes())["file"] if note.is_file() else os.path.relpath(path, root)
        other = (root / owner).resolve()
        if other != path and other.is_file():
            kept = load_profile(str(other))
            changed = list(self.profile.differences(kept)) if kept.name == self.profile.name else []
            if changed:
                names = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
                raise InputError(
                    f"profile {path} has the name of {other}, whose results this home holds, and other settings "
                    f"({names}): give it a name of its own (`name:`)."
                )
        write_atomic(note, (json.dumps({"file": os.path.relpath(path, root)}) + "\n").encode("utf-8"))

    def check_languages(self, languages: tuple[str, ...]) -> list[str]:
        """Codes in the profile's order, heaviest first. Raises InputError for one that the profile does not have."""
        for code in languages:
            if code not in self.codes:
                known = ", ".join(sorted(self.codes))
                raise InputError(f"language {code!r} is not in profile {self.profile.name!r}: use one of {known}.")
        return [code for code in self.codes if code in languages]


def _wrong_languages(profile: Profile) -> Iterator[str]:
    """What is wrong with each setting that names languages: the task's, and for a backbone the profile's."""
    own = [] if profile.languages == "all" else list(profile.languages)
    named = [("languages", str(own), code) for code in own]
    for section, plans in (("synthesis", profile.synthesis.per_language), ("curation", profile.curation.per_language)):
        named += [(f"{section}.per_language.{code}", repr(code), code) for code in plans]
    for setting, value, code in named:
        try:
            language(code)
        except InputError as error:
            yield f"setting `{setting}` is {value}: {str(error).rstrip('.')}"
            if setting == "languages":
                return
    known = language_codes(profile.languages)
    for place, entry in enumerate(profile.backbones):
        chosen = "all" if isinstance(entry, LinearSettings) else entry.languages
        wrong = [] if chosen == "all" else sorted(set(chosen) - set(known))
        if wrong or not chosen:
            yield (
                f"backbones.{place} ({entry.name}): languages names {', '.join(wrong) or 'none'}, "
                f"use all or some of the profile's: {', '.join(sorted(known))}"
            )
