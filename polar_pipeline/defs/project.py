"""What the definitions are built from: a profile, its task card, and a home.

Read from the environment when asked, never at import.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.release import bundled_folder, release_folder
from polar_pipeline.corpus.sources import sources_sha256
from polar_pipeline.errors import EnvironmentProblem, InputError
from polar_pipeline.settings.backbones import LinearSettings
from polar_pipeline.settings.decision import FoldSettings
from polar_pipeline.settings.profile import DEFAULT_PROFILE, Profile, bundled_profiles, load_profile, profile_path
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.storage.home import Home, ProfileFolder
from polar_pipeline.storage.record import Record
from polar_pipeline.task.card import TaskCard, load_card
from polar_pipeline.task.languages import language_code, language_codes

BUNDLED, RELEASE = "bundled", "release"  # what `data` may be beside a path


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
        card = load_card(str(beside(settings.task, name)))
        if wrong := list(_wrong_languages(settings, card)) + list(_wrong_kind(settings, card)):
            raise InputError(f"profile {profile_path(name)}: {'; '.join(wrong)}.")
        return cls(settings, card, Home.from_environment(environment), name)

    @classmethod
    def of_results(cls, home: Home, name: str) -> "Project":
        """The project whose results lie in `home` under this name.

        Raises InputError if its profile is unknown, cannot be read, or is not of this name any more.
        """
        origin = read_origin(home.results(name))
        source = name if origin is None or origin.source == BUNDLED else origin.source
        if source == name and name not in bundled_profiles():
            raise InputError(f"the profile file of {name} is unknown: run `polar run` with it once.")
        found = cls.load(source, {**os.environ, "POLAR_HOME": str(home.root)})
        if found.profile.name != name:
            raise InputError(f"{source} is now profile {found.profile.name!r}.")
        return found

    @property
    def results(self) -> ProfileFolder:
        """Where this profile's results lie."""
        return self.home.results(self.profile.name)

    @property
    def codes(self) -> list[str]:
        """The profile's languages, heaviest first."""
        return language_codes(self.profile.languages, self.card.codes)

    @property
    def data(self) -> Path:
        """A folder or a file with the posts. Raises InputError with the remedy when there is none."""
        if self.profile.data == BUNDLED:
            return bundled_folder()
        if self.profile.data == RELEASE:
            return release_folder(self.home, os.environ)
        named = beside(self.profile.data, self.source)
        if not named.exists():
            raise InputError(f"data {named} of profile {self.profile.name!r} does not exist: correct `data`.")
        return named

    def release_sha256(self, code: str) -> dict[str, str]:
        """sha256 of the files that hold a language's posts, by their path in the data."""
        return sources_sha256(self.data, code, self.card.codes)

    def posts(
        self, language: str, folds: FoldSettings | None = None, say: Callable[[str], None] | None = None
    ) -> pd.DataFrame:
        """The posts of one language with their folds; `folds` are the profile's unless given. Raises InputError.

        `say` is told what was guessed of files.
        """
        posts = read_posts(self.data, language, self.card, say)
        return assign_folds(posts, folds or self.profile.folds, self.profile.seed, tuple(self.card.label_columns))

    def synthesis(self, language: str) -> SynthesisSettings:
        """The settings of a language's synthetic posts; the path of their file is as it is found from here."""
        settings = self.profile.synthesis.of(language)
        if settings.path is None:
            return settings
        return settings.model_copy(update={"path": str(beside(settings.path, self.source))})

    @property
    def language_model(self) -> Path | None:
        """The file of `curation.language_model`, as it is found from here."""
        named = self.profile.curation.language_model
        return beside(named, self.source) if named else None

    def check_languages(self, languages: tuple[str, ...]) -> list[str]:
        """Codes in the profile's order, heaviest first, of codes or names such as `de` and `German`.

        Raises InputError for one that the profile does not have.
        """
        meant = {name: name if name in self.codes else language_code(name) for name in languages}
        for name, code in meant.items():
            if code not in self.codes:
                known = ", ".join(sorted(self.codes))
                raise InputError(f"language {name!r} is not in profile {self.profile.name!r}: use one of {known}.")
        return [code for code in self.codes if code in meant.values()]


class ProfileOrigin(Record):
    """Which profile file a home's results belong to, and its settings at that time.

    `source` is the absolute path, or `bundled`. `relative` is the path from the folder of the results: it still holds
    where a folder with the home and the file in it was moved or copied.
    """

    source: str
    relative: str = ""
    settings: dict[str, Any]


def claim_results(project: Project) -> None:
    """Note that the results of this profile's name belong to its file; the caller is their one writer.

    Raises InputError, before anything is written, if they belong to another file with the same name and other settings.
    """
    before, now = check_origin(project), _origin(project)
    if now != before:
        write_atomic(project.results.settings, f"{now.model_dump_json(indent=1)}\n".encode())


def check_origin(project: Project) -> ProfileOrigin | None:
    """Which file the results of this profile's name belong to; None if there are none yet.

    A file that was edited, moved or copied stays the same profile. Raises InputError if they belong to another one.
    """
    before, now = read_origin(project.results), _origin(project)
    if before is None or before.source == now.source or before.settings == now.settings:
        return before
    name = project.profile.name
    gone = name not in bundled_profiles() if before.source == BUNDLED else not Path(before.source).exists()
    if gone:
        return before
    ours, theirs = (f"the bundled profile {name}" if it.source == BUNDLED else it.source for it in (now, before))
    taken, remedy = f"{project.home.root} has results of profile {name!r} of {theirs}", f"give {ours} a name of its own"
    try:
        other = load_profile(name if before.source == BUNDLED else before.source)
    except InputError as error:
        raise InputError(
            f"{taken}, which is not valid now ({str(error).rstrip('.')}): correct it, or {remedy}."
        ) from None
    if other.name == name and (changed := list(other.differences(project.profile))):
        settings = ", ".join(changed[:3]) + (", ..." if len(changed) > 3 else "")
        raise InputError(f"{taken}, and {ours} has the same name and other settings ({settings}): {remedy} (`name:`).")
    return before


def read_origin(results: ProfileFolder) -> ProfileOrigin | None:
    """What is noted beside the results, its `source` where the file lies now, or None if nothing is noted.

    Raises EnvironmentProblem if it cannot be read.
    """
    try:
        noted = ProfileOrigin.model_validate_json(results.settings.read_bytes())
        near = (results.root / noted.relative).resolve()
        return noted.model_copy(update={"source": str(near)}) if noted.relative and near.is_file() else noted
    except FileNotFoundError:
        return None
    except ValidationError:
        raise EnvironmentProblem(
            f"{results.settings} is damaged: delete it; it only says which profile file these results belong to."
        ) from None


def _origin(project: Project) -> ProfileOrigin:
    path = profile_path(project.source).resolve()
    bundled = path in {profile_path(name).resolve() for name in bundled_profiles()}
    settings = project.profile.model_dump(mode="json", exclude={"name", "description"})
    if bundled:
        return ProfileOrigin(source=BUNDLED, settings=settings)
    relative = Path(os.path.relpath(path, project.results.root.resolve())).as_posix()
    return ProfileOrigin(source=str(path), relative=relative, settings=settings)


def beside(value: str, profile: str) -> Path:
    """A path of a setting: one that is not absolute is beside the profile's file, else in the current folder."""
    near = profile_path(profile).parent / value
    return near if near.exists() else Path(value).expanduser()


def _wrong_kind(profile: Profile, card: TaskCard) -> Iterator[str]:
    """What cannot be done for the task's kind."""
    if card.labels and any(profile.synthesis.of(code).source != "none" for code in card.codes):
        yield f"synthetic posts are of a binary task, and {card.name} is {card.kind}: set synthesis.source to none"
    if profile.decision.consistent and card.kind != "multilabel":
        yield f"decision.consistent is of a task with several labels, and {card.name} is {card.kind}: leave it out"


def _wrong_languages(profile: Profile, card: TaskCard) -> Iterator[str]:
    """What is wrong with each setting that names languages: the task's, and for a backbone the profile's."""
    own = [] if profile.languages == "all" else list(profile.languages)
    named = [("languages", str(own), code) for code in own]
    for section, plans in (("synthesis", profile.synthesis.per_language), ("curation", profile.curation.per_language)):
        named += [(f"{section}.per_language.{code}", repr(code), code) for code in plans]
    for setting, value, code in named:
        if code not in card.codes:
            yield (
                f"setting `{setting}` is {value}: language {code!r} is not one of the task's: "
                f"use one of {', '.join(card.codes)}"
            )
            if setting == "languages":
                return
    known = language_codes(profile.languages, card.codes)
    for place, entry in enumerate(profile.backbones):
        chosen = "all" if isinstance(entry, LinearSettings) else entry.languages
        wrong = [] if chosen == "all" else sorted(set(chosen) - set(known))
        if wrong or not chosen:
            yield (
                f"backbones.{place} ({entry.name}): languages names {', '.join(wrong) or 'none'}, "
                f"use all or some of the profile's: {', '.join(sorted(known))}"
            )
