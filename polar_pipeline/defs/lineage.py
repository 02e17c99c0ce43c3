"""What every output depends on, and the one answer to "is it current, and if not, why?".

Asked by `polar run`, `polar status`, the report, the submission and `polar predict`; Dagster's own "stale" compares
the same code versions and data versions, and so agrees on what has to be made again first; what lies downstream it
marks only once that is made.
"""

import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import Any

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.defs.nodes import Node, nodes
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.storage.outputs import Outputs, Provenance, code_version, output_name


class Lineage:
    """The outputs of one profile, and which of them are current. Answers are kept: make a new one after a change."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.outputs = Outputs(project.home.root, project.results.tables)
        self.nodes = {node.name: node for node in nodes(project)}
        self._reasons: dict[tuple[str, str | None], list[str]] = {}

    @cached_property
    def language_assets(self) -> list[str]:
        """Assets of one language, upstream first."""
        return [name for name, node in self.nodes.items() if node.partitioned]

    @property
    def fingerprint(self) -> str:
        """Of all settings that some output depends on."""
        return code_version({name: self.code_version(name) for name in self.nodes})

    def code_version(self, asset: str) -> str:
        """The code version of an asset for Dagster; where languages have settings of their own, those of all."""
        node = self.nodes[asset]
        if not node.partitioned:
            return code_version(node.settings(None))
        found = sorted({code_version(node.settings(code)) for code in self.project.codes})
        return found[0] if len(found) == 1 else code_version({"languages": found})

    def read(self, asset: str, language: str | None) -> Any:
        """A stored value; raises InputError when it is missing or damaged."""
        return self.outputs.read(asset, language, self.nodes[asset].kind)

    def inputs(self, asset: str, language: str | None) -> dict[str, str]:
        """The present data versions of everything upstream, by output; what is not there is left out."""
        found = {}
        for name, key in self._upstream(asset, language):
            there = self.outputs.provenance(name, key)
            if there is not None and (language is not None or not self.why_not_usable(name, key)):
                found[output_name(name, key)] = there.sha256
        return found

    def why_not_current(self, asset: str, language: str | None) -> list[str]:
        """Why an output has to be made again, in words; empty when it is current.

        One that is only incomplete, as a cap on dollars leaves it, is used downstream all the same.
        """
        found, reasons = self.outputs.provenance(asset, language), self.why_not_usable(asset, language)
        return [*reasons, f"incomplete: {found.incomplete}"] if found and found.incomplete else reasons

    def why_not_usable(self, asset: str, language: str | None) -> list[str]:
        """Why nothing may be made from an output; empty if it is what would be made now, or a part of that."""
        key = (asset, language)
        if key not in self._reasons:
            self._reasons[key] = list(self._why(self.nodes[asset], language))
        return self._reasons[key]

    def unchanged(self, asset: str, language: str | None) -> Provenance | None:
        """What is stored, if making it again would give the same; upstream is taken as it is. Else None."""
        node, found = self.nodes[asset], self.outputs.provenance(asset, language)
        same = (
            found is not None
            and not any(check.refused for check in found.checks)
            and not found.incomplete
            and found.code_version == code_version(node.settings(language))
            and found.sources == node.sources(language)
            and found.inputs == self.inputs(asset, language)
            and not self._damage(node, found)
        )
        return found if same else None

    def stale(self, language: str) -> dict[str, list[str]]:
        """The assets of one language that are not current or follow one that is not, upstream first, and why."""
        found: dict[str, list[str]] = {}
        for name in self.language_assets:
            above = [output_name(one, key) for one, key in self._upstream(name, language) if one in found]
            if reasons := self.why_not_current(name, language) or [f"{output} may change" for output in above]:
                found[name] = reasons
        return found

    def shared_reasons(self, stale: Mapping[str, Iterable[str]]) -> dict[tuple[str, ...], list[str]]:
        """Why the `stale` assets of languages are not current, and for each set of reasons the languages."""
        found: dict[tuple[str, ...], list[str]] = {}
        for code, assets in stale.items():
            if all(self.outputs.provenance(name, code) is None for name in self.language_assets):
                reasons = ["not made yet"]
            else:
                reasons = []
                for name in assets:
                    own = [f"{name}: {reason}" for reason in self.why_not_current(name, code)]
                    reasons += self.root_reasons(name, code) or own
            unique = dict.fromkeys(reason.replace(f"/{code}.", "/<language>.") for reason in reasons)
            found.setdefault(tuple(unique), []).append(code)
        return {
            reasons if len(codes) > 1 else tuple(one.replace("/<language>.", f"/{codes[0]}.") for one in reasons): codes
            for reasons, codes in found.items()
        }

    def require_current(self, asset: str, language: str) -> None:
        """Raise InputError with the reason and the remedy when an output is not current."""
        if reasons := self.root_reasons(asset, language):
            where = shlex.join(["--profile", self.project.source, "--home", str(self.project.home.root)])
            raise InputError(
                f"{asset} of {language} is not current ({'; '.join(reasons)}): "
                f"run `polar run --language {language} {where}`."
            )

    def root_reasons(self, asset: str, language: str | None) -> list[str]:
        """Why an output is not usable: the reasons of the outputs furthest upstream that are not."""
        reasons, roots = self.why_not_usable(asset, language), []
        if not reasons:
            return []
        for name, key in self._upstream(asset, language):
            roots += [reason for reason in self.root_reasons(name, key) if reason not in roots]
        return roots or [f"{asset}: {reason}" for reason in reasons]

    def _why(self, node: Node, language: str | None) -> Iterator[str]:
        found = self.outputs.provenance(node.name, language)
        if found is None:
            yield "not made yet"
            return
        yield from _settings_changed(found.settings, node.settings(language))
        with suppress(InputError):  # a machine without a release has nothing to compare with
            yield from _changed("file", found.sources, node.sources(language))
        if damage := self._damage(node, found):
            yield damage
        yield from (f"it fails the check {check.name}: {check.complaint}" for check in found.checks if check.refused)
        if node.partitioned:
            yield from self._inputs_changed(node, language, found)
        else:
            yield from _changed("output", found.inputs, self.inputs(node.name, None))

    def _damage(self, node: Node, found: Provenance) -> str:
        """What is wrong with the files of an output, in words. A file too many damages an adapter as well."""
        damage = self.outputs.damage(found, node.kind)
        if damage or node.kind is not AdapterRef:
            return damage
        root, adapters = self.project.home.root, self.project.home.adapters
        folder = adapters / self.outputs.read(found.asset, found.language, AdapterRef).path
        there = {file.relative_to(root).as_posix() for file in folder.rglob("*") if file.is_file()}
        others = sorted(there - set(found.files))
        return f"{others[0]} does not belong to the adapter" if others else ""

    def _inputs_changed(self, node: Node, language: str | None, found: Provenance) -> Iterator[str]:
        now = self.inputs(node.name, language)
        for name, key in self._upstream(node.name, language):
            output = output_name(name, key)
            if self.why_not_usable(name, key):
                yield f"{output} is not current"
            elif found.inputs.get(output) != now.get(output):
                yield f"it was made from another {output}"
        if set(found.inputs) - {output_name(*one) for one in self._upstream(node.name, language)}:
            yield "it was made from outputs that the profile does not have"

    def _upstream(self, asset: str, language: str | None) -> Iterator[tuple[str, str | None]]:
        for name in self.nodes[asset].inputs:
            if not self.nodes[name].partitioned:
                yield name, None
            elif language is not None:
                yield name, language
            else:
                yield from ((name, code) for code in self.project.codes)


def _settings_changed(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """One sentence for each setting that has another value, by its path."""
    if code_version(before) == code_version(now):
        return
    old, new = dict(setting_leaves(before)), dict(setting_leaves(now))
    for path in sorted(set(old) | set(new)):
        if old.get(path) != new.get(path):
            yield f"setting {path} is {_short(new.get(path))}, was {_short(old.get(path))}"


def setting_leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by their dotted path; a list is one value."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from setting_leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _short(value: Any) -> str:
    text = "not set" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _changed(what: str, before: dict[str, str], now: dict[str, str]) -> Iterator[str]:
    for name in sorted(set(before) | set(now)):
        if name not in now:
            yield f"{what} {name} is gone"
        elif name not in before:
            yield f"{what} {name} is new"
        elif before[name] != now[name]:
            yield f"{what} {name} has changed"
