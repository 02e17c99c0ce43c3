"""The base of the small facts that stages hand to each other as JSON: validated, immutable, no unknown keys."""

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from polar_pipeline.errors import InputError


class Record(BaseModel):
    """A frozen JSON record."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Record)


def read_record(path: Path, kind: type[Kind]) -> Kind:
    """The record in the JSON file at `path`.

    Raises InputError when another version of the package, or a hand, wrote it.
    """
    return parse_record(path.read_bytes(), path, kind)


def parse_record(content: bytes, path: Path, kind: type[Kind]) -> Kind:
    """The record in `content`, which was read from `path`. Raises InputError as `read_record` does."""
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        fields = ", ".join(sorted({str(problem["loc"][0]) if problem["loc"] else "JSON" for problem in error.errors()}))
        raise InputError(
            f"{path} is no {kind.__name__} of this version (wrong or missing: {fields}): "
            f"materialize {path.parent.name} for {path.stem} again."
        ) from None
