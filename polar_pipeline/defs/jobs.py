"""Two jobs: one per language, partitioned, and one across languages. One job for both would run the report in every language."""

from typing import Any

import dagster as dg

LANGUAGE_JOB, REPORT_JOB = "language_pipeline", "report"
ACROSS_LANGUAGES = ("benchmark_report", "submission")


def jobs() -> list[Any]:
    """The language job and the report job. Their stages are light: separate processes per step would cost more than the work."""
    across = dg.AssetSelection.assets(*ACROSS_LANGUAGES)
    return [
        dg.define_asset_job(
            LANGUAGE_JOB,
            selection=dg.AssetSelection.all() - across,
            executor_def=dg.in_process_executor,
            description="One language, from raw posts to predictions.",
        ),
        dg.define_asset_job(
            REPORT_JOB,
            selection=across,
            executor_def=dg.in_process_executor,
            description="The report and the submission, over all languages that are there.",
        ),
    ]
