"""Schedules: weekly retraining of every language. Off until somebody turns it on in the UI."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from polar_pipeline.defs.project import Project


def weekly_retraining(project: Project, language_job: Any) -> dg.ScheduleDefinition:
    """Mondays at 03:00 UTC, one run per language; the dated run key makes a repeated tick ask for nothing twice."""

    @dg.schedule(
        name="weekly_retraining",
        cron_schedule="0 3 * * 1",
        execution_timezone="UTC",
        job=language_job,
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Retrains every language on Monday at 03:00 UTC; the report follows by itself.",
    )
    def retrain(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
        date = context.scheduled_execution_time.strftime("%Y-%m-%d")
        for code in project.codes:
            yield dg.RunRequest(run_key=f"{date}|{code}", partition_key=code)

    return retrain
