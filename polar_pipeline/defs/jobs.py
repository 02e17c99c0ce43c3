"""Jobs: one per language, partitioned, and one across languages. One job for both would run the report in every language."""

import warnings
from typing import Any

import dagster as dg

from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.settings.profile import Profile

LANGUAGE_JOB, REPORT_JOB, ADAPTERS_JOB = "language_pipeline", "report", "train_adapters"
PREPARE_JOB, POOLED_JOB = "prepare_posts", "train_pooled"
ACROSS_LANGUAGES = ("benchmark_report", "submission")


def jobs(profile: Profile) -> list[Any]:
    """The language job, the report job, and where models are trained one that trains their adapters, many languages over one base.

    Their stages are light: separate processes per step would cost more than the work.
    """
    lora = [entry for entry in profile.backbones if isinstance(entry, LoraSettings)]
    pooled = [f"{entry.name}_pooled_adapter" for entry in lora if entry.scope == "pooled"]
    across = dg.AssetSelection.assets(*ACROSS_LANGUAGES)
    once = across | dg.AssetSelection.assets(*pooled) if pooled else across
    found = [
        dg.define_asset_job(
            LANGUAGE_JOB,
            selection=dg.AssetSelection.all() - once,
            description="One language, from raw posts to predictions.",
        ),
        dg.define_asset_job(
            REPORT_JOB,
            selection=across,
            description="The report and the submission, over all languages that are there.",
        ),
    ]
    trained = [f"{entry.name}_adapter" for entry in lora if entry.scope == "language"]
    if trained:
        # the language job runs a language a run, as it should, though adapters alone may take many
        warnings.filterwarnings("ignore", message="Asset job language_pipeline materializes assets with varying")
        found.append(
            dg.define_asset_job(
                ADAPTERS_JOB,
                selection=dg.AssetSelection.assets(*trained),
                description="Adapters of the chosen languages in one run, which loads each base once. Needs their deduped_posts.",
            )
        )
    if lora:
        posts = dg.AssetSelection.assets("deduped_posts").upstream()
        found.append(
            dg.define_asset_job(
                PREPARE_JOB,
                selection=posts,
                description="One language up to the posts that are trained on.",
            )
        )
    if pooled:
        found.append(
            dg.define_asset_job(
                POOLED_JOB,
                selection=dg.AssetSelection.assets(*pooled),
                description="The adapters for all languages together. Needs deduped_posts of all of them.",
            )
        )
    return found
