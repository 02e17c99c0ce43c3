"""The task card: labels, definition and submission format of a task, read from YAML.

A task is binary (one label, 0 or 1), multilabel (several such labels) or multiclass (each post has one class).

What does not belong here: how the task is solved (that is the profile) and which languages there are (the registry).
"""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from polar_pipeline.settings.files import FileFormat
from polar_pipeline.settings.yaml_files import Settings, read_settings
from polar_pipeline.task.languages import LANGUAGES, Language, add_language

# The head of a model that was trained on the label itself; others bear the name of a group of auxiliary labels.
MAIN_HEAD = "label"


class Columns(Settings):
    """Which columns of the files hold what. Capitals, spaces and dashes make no difference."""

    text: str = "text"
    id: str | None = None  # None: the column `id` if there is one; "": none, ids are made from the texts
    language: str | None = None  # None: the name of the file, or the only language of the card
    split: str | None = None  # None: the name of the file or its folder; else every labelled post is for training


class Label(Settings):
    """The label of a binary task: its column in the files and the meaning of 0 and 1.

    Of a multiclass task it is the column of the classes. Of a multilabel task, 1 is a post with any of the labels; with
    `separator`, the column holds the names of all labels of a post, such as `anger; fear` or `["anger", "fear"]`.
    """

    column: str = ""
    separator: str | None = Field(default=None, min_length=1, max_length=3)
    negative: str = ""
    positive: str = ""
    definition: str = ""
    words: Mapping[str, Literal[0, 1]] = Field(default_factory=dict)  # of the files, beside those that `codes` has
    missing: tuple[str, ...] = ()  # what stands for no label, beside an empty cell, such as nan

    @property
    def codes(self) -> dict[str, int]:
        """0 or 1 for each word that means it, in small letters: numbers, true, yes, the card's own names and words."""
        known = {"0": 0, "0.0": 0, "false": 0, "no": 0, "1": 1, "1.0": 1, "true": 1, "yes": 1}
        known |= {name.casefold(): code for code, name in enumerate((self.negative, self.positive)) if name}
        return known | {word.strip().casefold(): code for word, code in self.words.items()}

    def word(self, code: int) -> str:
        """What predictions write for 0 or 1: the first word of the card's own that means it, else the number."""
        return next((word for word, meant in self.words.items() if meant == code), str(code))

    @field_validator("words", mode="before")
    @classmethod
    def _as_texts(cls, value: Any) -> Any:
        # YAML takes yes, no and numbers for other things than texts
        return {str(word): code for word, code in value.items()} if isinstance(value, dict) else value


class NamedLabel(Settings):
    """One label of a multilabel task, or one class of a multiclass task."""

    name: str = Field(min_length=1)
    definition: str = ""
    column: str | None = None  # of a multilabel task: where its 0 and 1 stand; None: the column of its name
    words: tuple[str, ...] = ()  # where a column holds names: what stands for this one in the files, beside its name

    @field_validator("name", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int | float) else value

    @field_validator("words", mode="before")
    @classmethod
    def _as_texts(cls, value: Any) -> Any:
        return [str(word) for word in value] if isinstance(value, list) else value


class Auxiliary(Settings):
    """Columns with finer 0/1 labels that training may use."""

    types: tuple[str, ...] = ()
    manifestations: tuple[str, ...] = ()
    definitions: Mapping[str, str] = Field(default_factory=dict)  # of some of them, by name: prompts say them

    @model_validator(mode="after")
    def _defines_its_own(self) -> "Auxiliary":
        if unknown := [name for name in self.definitions if name not in self.columns]:
            raise ValueError(f"auxiliary.definitions has {unknown[0]!r}, which is none of the auxiliary labels")
        return self

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


class OwnLanguage(Settings):
    """A language that the standards do not know, or say too little of."""

    code: str = Field(pattern=r"^[a-z]{3}$")  # qaa to qtz are free for private use
    name: str = Field(min_length=1)
    scripts: tuple[str, ...] = ()  # Unicode's names, first the main one
    family: str = ""

    @model_validator(mode="after")
    def _known(self) -> "OwnLanguage":
        family = self.family or f"its own ({self.code})"
        add_language(Language(self.code, self.name, self.name, "", self.scripts, family, 0))
        return self


class TaskCard(Settings):
    """One task."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    kind: Literal["binary", "multiclass", "multilabel"] = "binary"
    # What is decided by and reported. macro-F1: the mean of the F1 of the classes, as scikit-learn has it: of both
    # answers, of all classes, or of the positives of each label. F1: of positives, their mean over labels or classes.
    metric: Literal["macro-F1", "F1", "accuracy"] = "macro-F1"
    own_languages: tuple[OwnLanguage, ...] = ()  # before `languages`, which may name them
    languages: tuple[str, ...] = ()  # ISO 639-3 codes; empty stands for the 22 of the official task
    columns: Columns = Columns()
    id_begins: str = ""  # what every id should begin with, such as `{language}_`
    files: FileFormat = FileFormat()
    label: Label = Label()
    labels: tuple[NamedLabel, ...] = ()  # of a multilabel or multiclass task
    auxiliary: Auxiliary = Auxiliary()
    canaries: tuple[str, ...] = ()
    submission: Submission = Submission()

    @property
    def targets(self) -> tuple[str, ...]:
        """What is decided, each by 0 or 1: the label of a binary task, else the names of the labels or classes."""
        return tuple(label.name for label in self.labels) if self.labels else (MAIN_HEAD,)

    @property
    def label_columns(self) -> dict[str, str]:
        """The column of 0 and 1 of each label of a multilabel task, by its name; empty for the other kinds.

        Where one column holds the names of all labels, `corpus.labels.spread_labels` makes these of it.
        """
        if self.kind != "multilabel":
            return {}
        if self.label.separator:
            return {one.name: f"{self.label.column}: {one.name}" for one in self.labels}
        return {one.name: one.column or one.name for one in self.labels}

    @property
    def classes(self) -> dict[str, int]:
        """The number of the class that each word of the files means, in small letters; empty for the other kinds."""
        return self.named if self.kind == "multiclass" else {}

    @property
    def named(self) -> dict[str, int]:
        """The number of the label or class that each word of the files means, in small letters."""
        found = {one.name.strip().casefold(): place for place, one in enumerate(self.labels)}
        return found | {word.strip().casefold(): at for at, one in enumerate(self.labels) for word in one.words}

    def class_word(self, place: int) -> str:
        """What predictions write for a class: the first word of the files that means it, else its name."""
        return next(iter(self.labels[place].words), self.labels[place].name)

    def shown(self, target: str) -> str:
        """What a reader is told of a target: what its positive posts are."""
        return target if self.labels else self.label.positive

    @field_validator("labels", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        # a list of names says enough
        return [one if isinstance(one, dict) else {"name": one} for one in value] if isinstance(value, list) else value

    @model_validator(mode="after")
    def _labels_of_the_kind(self) -> "TaskCard":
        if self.kind == "binary":
            lacking = [
                name for name in ("column", "negative", "positive", "definition") if not getattr(self.label, name)
            ]
            if lacking:
                raise ValueError(f"a binary task needs label.{' and label.'.join(lacking)}")
            if self.labels:
                raise ValueError("`labels` are of a multilabel or multiclass task: set `kind`, or leave them out")
            return self
        if len(self.labels) < 2:
            raise ValueError(f"a {self.kind} task needs at least two `labels`")
        if self.kind == "multiclass" and not self.label.column:
            raise ValueError("a multiclass task needs label.column, where the classes stand")
        if self.label.separator and (self.kind != "multilabel" or not self.label.column):
            raise ValueError("label.separator is of a multilabel task whose label.column holds the names of all labels")
        words = [word for one in self.labels for word in {one.name.strip().casefold(), *map(str.casefold, one.words)}]
        taken = [MAIN_HEAD, *self.auxiliary.groups, *self.auxiliary.columns, "any"]
        for word in words:
            if words.count(word) > 1:
                raise ValueError(f"{word!r} stands for two of the `labels`")
        for name in self.targets:
            if name in taken:
                raise ValueError(f"{name!r} cannot be the name of one of the `labels`: it has another meaning here")
        return self

    @property
    def codes(self) -> tuple[str, ...]:
        """The languages of the task."""
        return self.languages or tuple(LANGUAGES)


def load_card(name_or_path: str) -> TaskCard:
    """A bundled card by its name, or one's own by its path. Raises InputError naming file and key."""
    bundled = resources.files("polar_pipeline.task") / "cards" / f"{name_or_path}.yaml"
    path = Path(str(bundled)) if bundled.is_file() else Path(name_or_path)
    return read_settings(path, TaskCard, what="task card")
