"""The assets of a profile as lineage knows them: what each is made from, and the settings that it depends on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.corpus.audit import Audit
from polar_pipeline.curation.embedding import encoding_of
from polar_pipeline.decision.record import Decisions
from polar_pipeline.defs.project import Project
from polar_pipeline.endpoint.connection import chosen_address
from polar_pipeline.pretrained.model_files import base_identity, downloaded_commit
from polar_pipeline.settings.backbones import (
    BackboneSettings,
    ImportedSettings,
    LinearSettings,
    LoraSettings,
    PretrainedSettings,
)
from polar_pipeline.settings.models import ModelSource
from polar_pipeline.storage.fingerprint import file_sha256
from polar_pipeline.synthesis.from_file import files_sha256

# Raised when a stage's results change though no setting did.
STAGE_VERSIONS = {"corpus": 3, "synthesis": 3, "curation": 4, "backbones": 4, "decision": 4, "report": 3}

ACROSS = ("benchmark_report", "submission")  # the assets over all languages
SHOWN = ("raw_posts", "corpus_audit", "deduped_posts", "thresholds", "ensemble_predictions")  # what the report reads
SUBMITTED = ("ensemble_predictions",)
_FINER = {"types", "manifestations"}  # names of finer labels
# what of the task card says how files are read
_READ: dict[str, Any] = dict.fromkeys(
    ("canaries", "columns", "files", "id_begins", "kind", "labels", "languages"), True
)
_READ["auxiliary"] = _FINER
# How a step uses the machine, which changes no result.
_MACHINE = {"device", "threads", "recompute", "checkpoint_seconds"}


@dataclass(frozen=True)
class Node:
    """One asset: what it stores, what it is made from, and the settings that it depends on, by language."""

    name: str
    kind: type[Any]
    inputs: tuple[str, ...]
    settings: Callable[[str | None], dict[str, Any]]
    sources: Callable[[str | None], dict[str, str]] = field(default=lambda _: {})
    partitioned: bool = True


def nodes(project: Project) -> Iterator[Node]:
    """All assets of a project, upstream first."""
    profile, card = project.profile, project.card
    labels = card.model_dump(mode="json", include={**_READ, "label": {"column", "negative", "positive", "words"}})
    words = card.model_dump(mode="json", include={"title", "label"})
    types = card.model_dump(mode="json", include={"auxiliary": {"types", "definitions"}})["auxiliary"]

    def fixed(stage: str, **settings: Any) -> Callable[[str | None], dict[str, Any]]:
        whole = {"version": STAGE_VERSIONS[stage], "seed": profile.seed, **settings}
        return lambda _: whole

    def release(language: str | None) -> dict[str, str]:
        codes = [language] if language else project.codes
        return {name: sha for code in codes for name, sha in project.release_sha256(code).items()}

    def synthesis(language: str | None) -> dict[str, Any]:
        settings = profile.synthesis.of(str(language)).content_settings()
        if profile.synthesis.source == "file":
            columns = card.columns
            settings["source_columns"] = [columns.text, columns.id, columns.language]
            settings["source_skip_bad"] = card.files.skip_bad
        asked = {"types": types} if profile.synthesis.source == "endpoint" else {}
        return fixed("synthesis", card=words, synthesis=settings, **asked)(language)

    def given(language: str | None) -> dict[str, str]:
        settings = project.synthesis(str(language))
        return files_sha256(settings, str(language), card.codes) if settings.source == "file" else {}

    def curation(language: str | None) -> dict[str, Any]:
        settings: dict[str, Any] = {"curation": profile.curation.of(str(language)).content_settings()}
        if profile.curation.gate and profile.synthesis.source != "none":  # the gate trains and decides
            linear = next((one for one in profile.backbones if isinstance(one, LinearSettings)), LinearSettings())
            settings["gate"] = linear.model_dump(mode="json") | {"decision": profile.decision.model_dump(mode="json")}
        if profile.curation.asks_endpoint:
            judge = profile.synthesis.at(profile.synthesis.judge)
            settings["endpoint"] = {"model": judge.model, "base_url": chosen_address(judge.base_url)}
            if profile.synthesis.embeddings is not None:
                own = profile.synthesis.at(profile.synthesis.embeddings)
                settings["endpoint"]["embeddings"] = chosen_address(own.base_url)
        return fixed("curation", card=words, **settings)(language)

    def models(language: str | None) -> dict[str, str]:  # noqa: ARG001 - the same for all languages
        encoding, identifier = encoding_of(profile.curation.embedder), project.language_model
        found = _model_sources(encoding.source, project.home.bases) if encoding else {}
        # a file that is gone is none, and curation names it
        given = {"language_model": file_sha256(identifier)} if identifier and identifier.is_file() else {}
        return found | given

    corpus = {"card": labels, "folds": profile.folds.model_dump(mode="json")}
    yield Node("raw_posts", pd.DataFrame, (), fixed("corpus", **corpus), release)
    yield Node("corpus_audit", Audit, ("raw_posts",), fixed("corpus", card=labels))
    yield Node("synthetic_posts", pd.DataFrame, ("raw_posts",), synthesis, given)
    yield Node("deduped_posts", pd.DataFrame, ("raw_posts", "synthetic_posts"), curation, models)
    scores = [f"{entry.name}_dev_probabilities" for entry in profile.backbones]
    adapters = [f"{entry.name}_adapter" for entry in profile.backbones]
    for entry in profile.backbones:
        own = {
            "folds": profile.folds.count,
            "card": card.model_dump(mode="json", include={"auxiliary": _FINER, "kind": True, "labels": True}),
        }
        settings = _backbone_settings(entry, fixed("backbones", **own))
        pooled = isinstance(entry, LoraSettings) and entry.scope != "language"
        sources = _backbone_sources(entry, project.home.adapters)
        adapter, made = f"{entry.name}_adapter", ["deduped_posts"]
        if pooled:
            across = f"{entry.name}_pooled_adapter"
            yield Node(across, AdapterRef, tuple(made), settings, sources, partitioned=False)
            made.append(across)
        yield Node(adapter, AdapterRef, tuple(made), settings, sources)
        looked_at = {"transductive": profile.decision.transductive}  # by the checks
        scored = _backbone_settings(entry, fixed("backbones", **own, **looked_at))
        yield Node(f"{entry.name}_dev_probabilities", pd.DataFrame, ("deduped_posts", adapter), scored)
    decision = fixed(
        "decision",
        card=card.model_dump(mode="json", include={"kind", "labels", "metric"}),
        decision=profile.decision.model_dump(mode="json"),
        pooled=sorted(profile.pooled_backbones),
    )
    yield Node("thresholds", Decisions, ("raw_posts", "corpus_audit", *scores, *adapters), decision)
    written = card.model_dump(mode="json", include={"kind": True, "labels": True, "label": {"column", "words"}})
    predicted = fixed("decision", label=written)
    yield Node("ensemble_predictions", pd.DataFrame, ("raw_posts", "thresholds", *scores), predicted)
    whole = profile.model_dump(mode="json", exclude={"name"})
    page = fixed("report", profile=whole, card=card.model_dump(mode="json"), languages=project.codes)
    yield Node("benchmark_report", str, SHOWN, page, release, partitioned=False)
    inside = fixed("report", submission=card.submission.model_dump(mode="json"), label=written)
    yield Node("submission", str, SUBMITTED, inside, partitioned=False)


def _backbone_settings(
    entry: BackboneSettings, others: Callable[[str | None], dict[str, Any]]
) -> Callable[[str | None], dict[str, Any]]:
    """The settings of one language: of `languages` it matters only whether it is among them."""
    left_out = _MACHINE | {"languages"} | ({"path"} if isinstance(entry, ImportedSettings) else set())
    settings = entry.model_dump(mode="json", exclude=left_out)

    def of(language: str | None) -> dict[str, Any]:
        if isinstance(entry, LinearSettings):
            return {**others(language), "backbone": settings}
        chosen: Any = entry.languages
        if language is not None:
            chosen = "with this one" if chosen == "all" or language in chosen else "without this one"
        return {**others(language), "backbone": {**settings, "languages": chosen}}

    return of


def _backbone_sources(entry: BackboneSettings, adapters: Path) -> Callable[[str | None], dict[str, str]]:
    """Files from outside that a backbone takes: imported scores, or a base model in a folder.

    A file that is gone is none, and training names it.
    """

    def sources(language: str | None) -> dict[str, str]:  # noqa: ARG001 - one file holds all languages
        if isinstance(entry, ImportedSettings):
            path = Path(entry.path)
            return {path.name: file_sha256(path)} if path.is_file() else {}
        if isinstance(entry, PretrainedSettings):
            return _model_sources(entry.source, adapters / "bases")
        return {}

    return sources


def _model_sources(source: ModelSource, bases: Path) -> dict[str, str]:
    """Which weights a model has, by its name: those of a folder, or the commit of the hub that this home uses."""
    if Path(source.model).is_dir():
        return {source.model: base_identity(source, bases)}
    commit = downloaded_commit(source, bases)
    return {source.model: commit} if commit else {}
