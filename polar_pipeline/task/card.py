"""The task card: labels, definition and submission format of a binary task, read from YAML.

What does not belong here: how the task is solved (that is the profile) and which languages there are (the registry).
"""

from importlib import resources
from pathlib import Path
from typing import Literal

from pydantic import Field

from polar_pipeline.settings.yaml_files import Settings, read_settings

# The head of a model that was trained on the label itself; others bear the name of a group of auxiliary labels.
MAIN_HEAD = "label"


class Label(Settings):
    """The binary label: its column in the files and the meaning of 0 and 1."""

    column: str
    negative: str
    positive: str
    definition: str


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

    folder: str
    file: str = Field(pattern=r"\{language\}")


class TaskCard(Settings):
    """One binary task."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str
    metric: Literal["macro-F1"] = "macro-F1"  # what is decided by and reported; a card may not name another
    label: Label
    auxiliary: Auxiliary = Auxiliary()
    canaries: tuple[str, ...] = ()
    submission: Submission


def load_card(name_or_path: str) -> TaskCard:
    """A bundled card by its name, or one's own by its path. Raises InputError naming file and key."""
    bundled = resources.files("polar_pipeline.task") / "cards" / f"{name_or_path}.yaml"
    path = Path(str(bundled)) if bundled.is_file() else Path(name_or_path)
    return read_settings(path, TaskCard, what="task card")
