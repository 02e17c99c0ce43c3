"""`polar compare`: the settings in which two results differ, and by how much their decisions do in each language."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from polar_pipeline.commands.as_json import comparison, print_json
from polar_pipeline.commands.options import is_yaml
from polar_pipeline.commands.printing import new_table, print_table
from polar_pipeline.decision.record import Decisions
from polar_pipeline.decision.targets import nested_targets
from polar_pipeline.defs.lineage import setting_leaves
from polar_pipeline.defs.project import Project, check_origin, read_origin
from polar_pipeline.errors import ExitCode, InputError
from polar_pipeline.metrics.intervals import Interval
from polar_pipeline.metrics.metric import task_metric
from polar_pipeline.report.comparison import Comparison, compare_language, overall, verdict
from polar_pipeline.storage.home import Home
from polar_pipeline.storage.outputs import Outputs, Provenance, code_version, output_name

_LONGEST = 40  # characters of a setting's value in the table
_NONE = "not set"


@dataclass(frozen=True)
class Side:
    """The results of one profile in one home. `title` is what the user called it."""

    title: str
    home: Home
    profile: str

    @property
    def outputs(self) -> Outputs:
        """What is stored."""
        return Outputs(self.home.root, self.home.results(self.profile).tables)

    @property
    def codes(self) -> set[str]:
        """Languages that were decided."""
        return set(self.outputs.languages("thresholds"))

    @property
    def command(self) -> str:
        """The command that makes these results again."""
        origin = read_origin(self.home.results(self.profile))
        own = origin is not None and is_yaml(origin.source)
        return f"polar run --all --profile {origin.source if origin and own else self.profile} --home {self.home.root}"


def compare_runs(first: str, second: str, languages: tuple[str, ...], as_json: bool = False) -> ExitCode:
    """Print settings that differ and the comparison of the languages that both sides have, or of those named.

    Raises InputError if a side cannot be found, is damaged, or was decided with several settings.
    """
    sides = [find_side(first), find_side(second)]
    for code in languages:
        for side in sides:
            if code not in side.codes:
                raise InputError(f"{code} has not been decided in {side.title}: run it there, or leave it out.")
    there = [side.codes for side in sides]
    shared = sorted(set(languages) or there[0] & there[1])
    if not shared:
        raise InputError(f"{first} and {second} have no language in common: nothing can be compared.")
    made = [{code: made_from(side, code) for code in shared} for side in sides]
    settings = [{code: settings_of(found) for code, found in one.items()} for one in made]
    for side, one in zip(sides, settings, strict=True):
        refuse_mixed(side, one)
    found = [_compared(sides, code) for code in shared]
    if as_json:
        print_json(comparison([side.title for side in sides], found))
        return ExitCode.DONE
    click.echo(f"A {sides[0].title}\nB {sides[1].title}")
    _print_settings(*settings)
    _print_files(*made)
    _print(found)
    for name, only in (("A", sorted(there[0] - there[1])), ("B", sorted(there[1] - there[0]))):
        if only and not languages:
            click.echo(f"in {name} only, left out: {', '.join(only)}")
    return ExitCode.DONE


def find_side(text: str) -> Side:
    """What A or B stands for: a profile with results in this home, a YAML file, a home folder, or HOME:PROFILE.

    Raises InputError if it is none of these, or has no results.
    """
    home, path = Home.from_environment(), Path(text).expanduser()
    folder, _, name = text.rpartition(":")
    if text in home.profiles:
        side = Side(text, home, text)
    elif is_yaml(text):
        project = Project.load(text)
        check_origin(project)
        side = Side(text, home, project.profile.name)
    elif path.is_dir():
        side = _only_profile(text, Home(path.resolve()))
    elif folder and Path(folder).expanduser().is_dir():
        side = Side(text, Home(Path(folder).expanduser().resolve()), name)
    else:
        known = f" ({', '.join(home.profiles)})" if home.profiles else ""
        raise InputError(
            f"{text!r} is neither a profile with results in {home.root}{known} nor a home folder: name one of them, a "
            f"profile's YAML file, or HOME:PROFILE."
        )
    if side.profile not in side.home.profiles or not side.codes:
        raise InputError(
            f"{side.home.root} has no results of profile {side.profile!r}: run it there, or name another profile."
        )
    return side


def _only_profile(text: str, home: Home) -> Side:
    found = [side for side in (Side(text, home, name) for name in home.profiles) if side.codes]
    if not found:
        raise InputError(f"{home.root} holds no run: name the home folder (POLAR_HOME) of a finished `polar run`.")
    if len(found) > 1:
        names = [side.profile for side in found]
        raise InputError(
            f"{home.root} has results of several profiles ({', '.join(names)}): name one of them, as {text}:{names[0]}."
        )
    return found[0]


def made_from(side: Side, code: str) -> dict[str, Provenance]:
    """What is known of a language's decision and of everything upstream of it, by output.

    Raises InputError if something upstream is gone, or is not what the decision was made from.
    """
    found: dict[str, Provenance] = {}
    remedy = f"run `{side.command}` again"
    waiting: list[tuple[str, str | None]] = [(output_name("thresholds", code), None)]
    while waiting:
        name, expected = waiting.pop()
        asset, _, language = name.removesuffix("]").partition("[")
        there = side.outputs.provenance(asset, language or None)
        if there is None:
            raise InputError(
                f"{side.title}: {name}, which the decision was made from, is not stored any more: {remedy}."
            )
        if expected not in (None, there.sha256):
            raise InputError(
                f"{side.title}: the decision of {code} was made from another {name} than is stored: {remedy}."
            )
        if there.code_version != code_version(there.settings):
            raise InputError(f"{side.title}: the record of {name} was changed after it was written: {remedy}.")
        if name not in found:
            found[name] = there
            # a pooled adapter is made from all languages, whose settings are their own
            waiting += list(there.inputs.items()) if language else []
    return found


def settings_of(found: dict[str, Provenance]) -> dict[str, str]:
    """The settings that a decision was made with, as JSON by their dotted path; a backbone's begin with its name."""
    settings: dict[str, list[str]] = {}
    for one in found.values():
        for path, value in setting_leaves(one.settings):
            name, text = _setting_name(path, one), json.dumps(value, ensure_ascii=False)
            if text not in settings.setdefault(name, []):
                settings[name].append(text)
    return {name: " and ".join(values) for name, values in settings.items()}


def _setting_name(path: str, one: Provenance) -> str:
    """A setting's name in a profile, for its path in what is recorded beside an output."""
    section, _, rest = path.partition(".")
    if section == "version":
        return f"version of {one.asset}"
    if section == "gate" and rest.startswith("decision."):
        return rest
    if section in ("backbone", "gate"):
        return f"{one.settings[section]['name']}.{rest}"
    names = {"folds": "folds.count", "transductive": "decision.transductive"}
    return f"synthesis.{rest}" if section == "endpoint" else names.get(path, path)


def refuse_mixed(side: Side, settings: dict[str, dict[str, str]]) -> None:
    """Raises InputError if languages were decided with different settings, other than those of their own plans."""
    for path in sorted({path for one in settings.values() for path in one}):
        codes: dict[str, list[str]] = {}
        for code, one in settings.items():
            codes.setdefault(one.get(path, _NONE), []).append(code)
        if len(codes) > 1 and not all(_is_planned(side, code, path, one) for code, one in settings.items()):
            values = " and ".join(f"{_short(value)} for {', '.join(named)}" for value, named in codes.items())
            raise InputError(
                f"{side.title} is mixed: setting {path} was {values}: run `{side.command}`, or name with --language "
                f"those that were decided alike."
            )


def _is_planned(side: Side, code: str, path: str, settings: dict[str, str]) -> bool:
    """Whether a language has this value because the profile gives it a plan of its own (`per_language`)."""
    origin = read_origin(side.home.results(side.profile))
    section, _, name = path.partition(".")
    whole = origin.settings.get(section) if origin else None
    if not isinstance(whole, dict) or not (plans := whole.get("per_language")):
        return False
    own = plans.get(code, {}).get(name)
    return settings.get(path) == json.dumps(whole.get(name) if own is None else own, ensure_ascii=False)


def _compared(sides: list[Side], code: str) -> Comparison:
    """Both runs on the posts that both decided, by the metric of the first."""
    first, second = (_nested(side, code) for side in sides)
    decisions = _decisions(sides[0], code)
    return compare_language(code, first, second, task_metric(decisions.metric, decisions.kind))


def _nested(side: Side, code: str) -> pd.DataFrame:
    """The posts that a decision was made on, with its nested predictions; both are verified by their hashes."""
    return nested_targets(_decisions(side, code), side.outputs.read("raw_posts", code, pd.DataFrame))


def _decisions(side: Side, code: str) -> Decisions:
    found: Decisions = side.outputs.read("thresholds", code, Decisions)
    return found


def differing_settings(
    first: dict[str, dict[str, str]], second: dict[str, dict[str, str]]
) -> Iterator[tuple[str, str, str]]:
    """Name, A's and B's value of each setting that differs; languages are named where not all of them differ alike."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for code in first:
        a, b = first[code], second[code]
        for backbone in _backbones(a) ^ _backbones(b):  # one line for one that is not on the other side
            there = ("yes", "no") if backbone in _backbones(a) else ("no", "yes")
            alike.setdefault((f"backbone {backbone}", *there), []).append(code)
            a, b = (_without(one, backbone) for one in (a, b))
        for path in sorted({*a, *b}):
            if a.get(path) != b.get(path):
                alike.setdefault((path, a.get(path, _NONE), b.get(path, _NONE)), []).append(code)
    for (path, *values), codes in alike.items():
        yield path if len(codes) == len(first) else f"{path} ({', '.join(codes)})", values[0], values[1]


def _backbones(settings: dict[str, str]) -> set[str]:
    return {path.removesuffix(".kind") for path in settings if path.endswith(".kind")}


def _without(settings: dict[str, str], backbone: str) -> dict[str, str]:
    own = (f"{backbone}.", f"version of {backbone}_")
    return {path: value for path, value in settings.items() if not path.startswith(own)}


def _print_settings(first: dict[str, dict[str, str]], second: dict[str, dict[str, str]]) -> None:
    rows = list(differing_settings(first, second))
    if not rows:
        click.echo("no setting differs")
        return
    table = Table(title="settings that differ", title_justify="left", box=SIMPLE_HEAD, collapse_padding=True)
    for column in ("setting", "A", "B"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(_short(cell)) for cell in row))  # brackets would be markup
    print_table(table, least=100)


def _print_files(first: dict[str, dict[str, Provenance]], second: dict[str, dict[str, Provenance]]) -> None:
    """Name the files from outside, of posts or imported scores, that are not the same on both sides."""
    differ: set[str] = set()
    for code, found in first.items():
        a, b = (
            {name: sha for one in made.values() for name, sha in one.sources.items()} for made in (found, second[code])
        )
        differ |= {name for name, _ in a.items() ^ b.items()}
    if differ:
        click.echo(f"files that differ: {', '.join(sorted(differ))}")


def _print(found: list[Comparison]) -> None:
    columns = ("language", "posts", "A", "B", "B - A", "interval", "verdict")
    title = "nested out-of-fold macro-F1 on the posts of both, with the paired 95% interval of B - A"
    table = new_table(columns, title=title)
    for item in found:
        values = (item.language, str(item.posts), f"{item.first:.4f}", f"{item.second:.4f}")
        table.add_row(*values, *_cells(item.difference))
    means = [sum(getattr(item, side) for item in found) / len(found) for side in ("first", "second")]
    table.add_section()
    table.add_row("mean", f"of {len(found)}", *(f"{mean:.4f}" for mean in means), *_cells(overall(found)))
    print_table(table, least=100)


def _cells(difference: Interval) -> tuple[str, str, str]:
    return f"{difference.value:+.4f}", f"{difference.low:+.4f} to {difference.high:+.4f}", verdict(difference)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
