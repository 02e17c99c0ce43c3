"""Reading a YAML file into a validated model, with one clear sentence for everything that is wrong with it."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from polar_pipeline.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


class Settings(BaseModel):
    """What all parts of a profile share: unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_settings(path: Path, model: type[Model], what: str) -> Model:
    """The YAML file at `path` as a `model`. Raises InputError that names the file, each wrong key and what it should be."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            f"{what} {path} does not exist: give the name of a bundled one or the path of a YAML file."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{what} {path} cannot be read ({error}): give a UTF-8 YAML file.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{what} {path} is not YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(content, dict):
        raise InputError(f"{what} {path} should hold `key: value` settings, not {type(content).__name__}.")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{what} {path}: {'; '.join(_sentences(error))}.") from None


def _sentences(error: ValidationError) -> list[str]:
    sentences = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "the file"
        if problem["type"] == "extra_forbidden":
            sentences.append(f"setting `{key}` is unknown, remove it or correct its name")
        elif problem["type"] == "missing":
            sentences.append(f"setting `{key}` is missing")
        elif not problem["loc"]:
            sentences.append(problem["msg"])
        else:
            sentences.append(f"setting `{key}` is {problem['input']!r}: {problem['msg']}")
    return sentences
