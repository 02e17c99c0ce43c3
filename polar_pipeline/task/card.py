"""The task card: labels, definition and submission format of a binary task, read from YAML.

What does not belong here: how the task is solved (that is the profile) and which languages there are (the registry).
"""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from polar_pipeline.settings.files import FileFormat
from polar_pipeline.settings.yaml_files import Settings, read_settings
from polar_pipeline.task.languages import LANGUAGES

# The head of a model that was trained on the label itself; others bear the name of a group of auxiliary labels.
MAIN_HEAD = "label"


class Columns(Settings):
    """Which columns of the files hold what. Capitals, spaces and dashes make no difference."""

    text: str = "text"
    id: str | None = None  # None: the column `id` if there is one; "": none, ids are made from the texts
    language: str | None = None  # None: the name of the file, or the only language of the card
    split: str | None = None  # None: the name of the file or its folder; else every labelled post is for training


class Label(Settings):
    """The binary label: its column in the files and the meaning of 0 and 1."""

    column: str
    negative: str
    positive: str
    definition: str
    words: Mapping[str, Literal[0, 1]] = Field(default_factory=dict)  # of the files, beside those that `codes` has

    @property
    def codes(self) -> dict[str, int]:
        """0 or 1 for each word that means it, in small letters: numbers, true, yes, the card's own names and words."""
        known = {"0": 0, "0.0": 0, "false": 0, "no": 0, "1": 1, "1.0": 1, "true": 1, "yes": 1}
        known |= {self.negative.casefold(): 0, self.positive.casefold(): 1}
        return known | {word.strip().casefold(): code for word, code in self.words.items()}

    def word(self, code: int) -> str:
        """What predictions write for 0 or 1: the first word of the card's own that means it, else the number."""
        return next((word for word, meant in self.words.items() if meant == code), str(code))

    @field_validator("words", mode="before")
    @classmethod
    def _as_texts(cls, value: Any) -> Any:
        # YAML takes yes, no and numbers for other things than texts
        return {str(word): code for word, code in value.items()} if isinstance(value, dict) else value


class Auxiliary(Settings):
    """Columns with finer 0/1 labels that training may use."""

    types: tuple[str, ...] = ()
    manifestations: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All auxiliary columns, types first."""
        return self.types + self.manifestations

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Columns by what they say: `types` and `manifestations`."""
        return {"types": self.types, "manifestations": self.manifestations}


class Submission(Settings):
    """Names inside submission.zip; `file` contains `{language}`."""

    folder: str = "predictions"
    file: str = Field(default="{language}.csv", pattern=r"\{language\}")


class TaskCard(Settings):
    """One binary task."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    metric: Literal["macro-F1"] = "macro-F1"  # what is decided by and reported; a card may not name another
    languages: tuple[str, ...] = ()  # ISO 639-3 codes; empty stands for the 22 of the official task
    columns: Columns = Columns()
    id_begins: str = ""  # what every id should begin with, such as `{language}_`
    files: FileFormat = FileFormat()
    label: Label
    auxiliary: Auxiliary = Auxiliary()
    canaries: tuple[str, ...] = ()
    submission: Submission = Submission()

    @property
    def codes(self) -> tuple[str, ...]:
        """The languages of the task."""
        return self.languages or tuple(LANGUAGES)


def load_card(name_or_path: str) -> TaskCard:
    """A bundled card by its name, or one's own by its path. Raises InputError naming file and key."""
    bundled = resources.files("polar_pipeline.task") / "cards" / f"{name_or_path}.yaml"
    path = Path(str(bundled)) if bundled.is_file() else Path(name_or_path)
    return read_settings(path, TaskCard, what="task card")
