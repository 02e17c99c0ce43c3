"""Reading a YAML file into a validated model, with one clear sentence for everything that is wrong with it."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from polar_pipeline.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


class Settings(BaseModel):
    """What all parts of a profile share: unknown keys are errors, and nothing changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
        raise InputError(f"{what} {path}: {'; '.join(_sentences(error, content))}.") from None


def _sentences(error: ValidationError, content: dict[str, Any]) -> list[str]:
    """One short sentence for each setting that is wrong; one that may be of several types is wrong once for each."""
    told: dict[str, list[str]] = {}
    for problem in error.errors():
        start, text = _sentence(problem, content)
        told.setdefault(start, []).append(text.rstrip("."))
    return [
        start + " or ".join([texts[0], *(text.removeprefix("Input should be ") for text in texts[1:])])
        for start, texts in told.items()
    ]


def _sentence(problem: Any, content: dict[str, Any]) -> tuple[str, str]:
    """Which setting it is, with its value, and what is wrong with it."""
    place, entry = _place(problem["loc"], content)
    text = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"setting `{place}`{entry} is unknown, ", "remove it or correct its name"
    if problem["type"] == "missing":
        return f"setting `{place}`{entry} is ", "missing"
    if problem["type"] == "union_tag_not_found":
        return f"setting `{place}.kind`{entry} is ", "missing"
    if problem["type"] == "union_tag_invalid":
        kinds = problem["ctx"]["expected_tags"].replace("'", "")
        return f"setting `{place}.kind`{entry} is {problem['ctx']['tag']!r}: ", f"use one of {kinds}"
    value = problem["input"]
    # settings that do not go together; the sentence names them
    if isinstance(value, dict) or (isinstance(value, list | tuple) and any(isinstance(one, dict) for one in value)):
        return f"{place}{entry}: " if place else "", text
    return f"setting `{place}`{entry} is {_short(value)}: ", text


def _place(found: tuple[int | str, ...], content: dict[str, Any]) -> tuple[str, str]:
    """The setting's path as it stands in the file, and in brackets the name of the list entry that it belongs to, if it has one."""
    value: Any = content
    parts, entry = [], ""
    for part in found:
        inside = isinstance(value, list) if isinstance(part, int) else isinstance(value, dict)
        if not inside or part == "[key]":
            continue  # pydantic names the type that it tried as if it were a setting
        if isinstance(value, dict) and part not in value and value.get("kind") == part:
            continue  # and the kind of an entry too
        parts.append(str(part))
        value = value.get(part) if isinstance(value, dict) else value[part] if int(part) < len(value) else None
        if isinstance(part, int) and isinstance(value, dict) and isinstance(value.get("name"), str):
            entry = f" ({value['name']})"
    return ".".join(parts), entry


def _short(value: Any) -> str:
    """As a person wrote it, if that is not long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
