"""Settings as YAML: read into a validated model, with a sentence for each mistake, and written with their reasons."""

import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from polar_pipeline.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


class Settings(BaseModel):
    """What all parts of a profile share: unknown keys are errors. The text below a setting is its description."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class _EachOnce(yaml.SafeLoader):
    """Refuses a key that is given twice, of which YAML readers keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                problem = f"setting `{key}` is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, node.value[place][0].start_mark)
        return super().construct_mapping(node, deep)


def read_settings(path: Path, model: type[Model], what: str) -> Model:
    """The YAML file at `path` as a `model`. Raises InputError that names the file and each wrong setting."""
    return validated(read_mapping(path, what), model, f"{what} {path}")


def read_mapping(path: Path, what: str) -> dict[str, Any]:
    """The `key: value` settings of a YAML file; `what` it should be stands in the InputError for one that is not."""
    try:
        content = _EachOnce(path.read_text(encoding="utf-8")).get_single_data()
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
    return content


def validated(content: dict[str, Any], model: type[Model], source: str) -> Model:
    """The settings as a `model`. Raises InputError that begins with `source` and names each wrong setting."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{source}: {'; '.join(_sentences(error, content))}.") from None


def _sentences(error: ValidationError, content: dict[str, Any]) -> list[str]:
    """One short sentence for each setting that is wrong; one that may be of several types is wrong once for each."""
    texts_by_start: dict[str, list[str]] = {}
    for problem in error.errors():
        start, text = _sentence(problem, content)
        texts_by_start.setdefault(start, []).append(text.rstrip("."))
    return [
        start + " or ".join([texts[0], *(text.removeprefix("Input should be ") for text in texts[1:])])
        for start, texts in texts_by_start.items()
    ]


def _sentence(problem: Any, content: dict[str, Any]) -> tuple[str, str]:
    """Which setting it is, with its value, and what is wrong with it."""
    place, entry = _place(problem["loc"], content)
    text = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"setting `{place}`{entry} is unknown, ", "remove it or correct its name"
    if problem["type"] == "invalid_key":
        return f"key {problem['input']!r}{f' of `{place}`' if place else ''} is no text: ", "give the name of a setting"
    if problem["type"] in {"missing", "union_tag_not_found"}:
        kind = ".kind" if problem["type"] == "union_tag_not_found" else ""
        return f"setting `{place}{kind}`{entry} is ", "missing"
    if problem["type"] == "union_tag_invalid":
        kinds = problem["ctx"]["expected_tags"].replace("'", "")
        return f"setting `{place}.kind`{entry} is {problem['ctx']['tag']!r}: ", f"use one of {kinds}"
    value = problem["input"]
    # settings that do not go together; the sentence names them
    if isinstance(value, dict) or (isinstance(value, list | tuple) and any(isinstance(one, dict) for one in value)):
        return f"{place}{entry}: " if place else "", text
    short = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
    return f"setting `{place}`{entry} is {short}: ", text


def _place(found: tuple[int | str, ...], content: dict[str, Any]) -> tuple[str, str]:
    """The setting's path in the file, and in brackets the name of the list entry that it belongs to, if any."""
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


def commented(settings: Settings, why: Mapping[str, str] | None = None) -> str:
    """The settings as YAML, below their reasons; `why` says by dotted path why some are not the default."""
    return "\n".join(_lines(settings, "", "", why or {})) + "\n"


def _lines(settings: Settings, place: str, indent: str, why: Mapping[str, str]) -> Iterator[str]:
    for name, field in type(settings).model_fields.items():
        value, path = getattr(settings, name), f"{place}{name}"
        entries = value if isinstance(value, tuple) and any(isinstance(one, Settings) for one in value) else ()
        section = isinstance(value, Settings) or entries
        if section and not indent:
            yield ""
        reason = field.description or ""
        default = field.get_default()
        if not section and not field.is_required() and default != "" and value != default:
            reason += f" The default is {_yaml(default)}."
        yield from _comment(reason, indent)
        if path in why:
            yield from _comment(f"Here: {why[path]}", indent)
        if not section:
            yield f"{indent}{name}: {_yaml(value)}"
            continue
        yield f"{indent}{name}:"
        if isinstance(value, Settings):
            yield from _lines(value, f"{path}.", f"{indent}  ", why)
        for number, entry in enumerate(entries):
            text = "\n".join(_lines(entry, f"{path}.{number}.", f"{indent}    ", why))
            # the first setting gets the dash
            yield re.sub(rf"^{indent}    (?!#)", f"{indent}  - ", text, count=1, flags=re.MULTILINE)


def _comment(text: str, indent: str) -> list[str]:
    start = f"{indent}# "
    return textwrap.wrap(text, 118, initial_indent=start, subsequent_indent=start, break_on_hyphens=False)


def _yaml(value: Any) -> str:
    """A plain value on one line."""
    if isinstance(value, dict):
        value = {key: one.model_dump(mode="json", exclude_none=True) for key, one in value.items()}
    value = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6)
    return text.removesuffix("...\n").strip()


def comments(path: Path) -> dict[str, str]:
    """The comment right above each setting of a YAML file, by the setting's dotted path (`backbones.0.name`)."""
    text = path.read_text(encoding="utf-8")
    lines, found = text.splitlines(), {}

    def walk(node: yaml.Node | None, place: str) -> None:
        children: list[tuple[str, yaml.Node, yaml.Node]] = []
        if isinstance(node, yaml.MappingNode):
            children = [(key.value, key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            children = [(str(number), value, value) for number, value in enumerate(node.value)]
        for name, start, value in children:
            if comment := _above(lines, start.start_mark.line):
                found[place + name] = comment
            walk(value, f"{place}{name}.")

    walk(yaml.compose(text, Loader=yaml.SafeLoader), "")
    return found


def _above(lines: list[str], line: int) -> str:
    """The text of the comment lines that end right above `line`."""
    first = line
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    return " ".join(one.strip().lstrip("# ") for one in lines[first:line])
