"""Jobs, chosen by group: one per language, and one across languages. One job for both would run the report in every
language.
"""

import warnings
from typing import Any

import dagster as dg

from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.project import Project
from polar_pipeline.settings.backbones import LoraSettings

LANGUAGE_JOB, REPORT_JOB, ADAPTERS_JOB = "language_pipeline", "report", "train_adapters"
PREPARE_JOB, POOLED_JOB = "prepare_posts", "train_pooled"
POSTS, REPORT_GROUPS, POOLED = ("corpus", "synthesis"), ("evidence",), ("pooled",)
OF_A_LANGUAGE = (*POSTS, "backbones", "decision")
PROFILE_TAG = "polar/profile"  # on every run of these jobs


def jobs(project: Project) -> dict[str, Any]:
    """Jobs by name: the language job and the report job; where models are trained, also jobs that train adapters of
    many languages over one base.

    Their stages are light: separate processes per step would cost more than the work.
    """
    profile = project.profile
    lora = [entry for entry in profile.backbones if isinstance(entry, LoraSettings)]
    trained = [dg.AssetKey([profile.name, f"{entry.name}_adapter"]) for entry in lora if entry.scope == "language"]
    groups = dg.AssetSelection.groups
    chosen: list[tuple[str, dg.AssetSelection, str]] = [
        (LANGUAGE_JOB, groups(*OF_A_LANGUAGE), "One language, from raw posts to predictions."),
        (REPORT_JOB, groups(*REPORT_GROUPS), "The report and the submission, over all languages that are there."),
    ]
    if trained:
        # the language job runs one language per run, as it should, though adapters alone may take many
        warnings.filterwarnings("ignore", message="Asset job language_pipeline materializes assets with varying")
        text = "Adapters of the chosen languages in one run, which loads each base once. Needs their deduped_posts."
        chosen.append((ADAPTERS_JOB, dg.AssetSelection.assets(*trained), text))
    if lora:
        chosen.append((PREPARE_JOB, groups(*POSTS), "One language up to the posts that are trained on."))
    if profile.trains_pooled:
        text = "The adapters that several languages share. Needs deduped_posts of all languages."
        chosen.append((POOLED_JOB, groups(*POOLED), text))
    tags = {PROFILE_TAG: profile.name, "polar/fingerprint": Lineage(project).fingerprint}
    return {
        name: dg.define_asset_job(name, selection=selection.materializable(), description=text, tags=tags)
        for name, selection, text in chosen
    }
