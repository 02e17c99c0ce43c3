"""The weekly retraining of every language. Off until somebody turns it on in the UI."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from polar_pipeline.defs.jobs import LANGUAGE_JOB, POOLED_JOB, PREPARE_JOB, PROFILE_TAG
from polar_pipeline.defs.project import Project

WEEK_TAG = "polar/week"  # the date of the schedule's tick, on every run that comes of it


def weekly_retraining(project: Project, jobs: dict[str, Any]) -> dg.ScheduleDefinition:
    """Mondays at 03:00 UTC, one run per language; the dated run key makes a repeated tick ask for nothing twice.

    Where languages share adapters, all posts are prepared first, and `weekly_follow_up` goes on.
    """
    first = PREPARE_JOB if project.profile.trains_pooled else LANGUAGE_JOB

    @dg.schedule(
        name="weekly_retraining",
        cron_schedule="0 3 * * 1",
        execution_timezone="UTC",
        job=jobs[first],
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Retrains every language on Monday at 03:00 UTC; the report follows by itself.",
    )
    def retrain(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
        date = context.scheduled_execution_time.strftime("%Y-%m-%d")
        for code in project.codes:
            yield dg.RunRequest(run_key=f"{date}|{code}", partition_key=code, tags={WEEK_TAG: date})

    return retrain


def weekly_follow_up(project: Project, jobs: dict[str, Any]) -> list[dg.SensorDefinition]:
    """Where languages share adapters: those are trained when all posts are prepared, and then the languages run."""
    if not project.profile.trains_pooled:
        return []
    prepare, pooled, language = jobs[PREPARE_JOB], jobs[POOLED_JOB], jobs[LANGUAGE_JOB]

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name="weekly_follow_up",
        monitored_jobs=[prepare, pooled],
        request_jobs=[pooled, language],
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="After the weekly preparation of all languages: pooled adapters, and then every language.",
    )
    def follow(context: dg.RunStatusSensorContext) -> Iterator[dg.RunRequest]:
        run = context.dagster_run
        if (date := run.tags.get(WEEK_TAG)) is None:
            return
        if run.job_name == POOLED_JOB:
            for code in project.codes:
                key = f"{date}|{code}|after pooled"
                yield dg.RunRequest(key, job_name=LANGUAGE_JOB, partition_key=code, tags={WEEK_TAG: date})
            return
        own = {WEEK_TAG: date, PROFILE_TAG: project.profile.name}  # other profiles of this home have the same jobs
        done = context.instance.get_runs(
            dg.RunsFilter(job_name=PREPARE_JOB, tags=own, statuses=[dg.DagsterRunStatus.SUCCESS])
        )
        if {one.tags.get("dagster/partition") for one in done} >= set(project.codes):
            yield dg.RunRequest(f"{date}|pooled", job_name=POOLED_JOB, tags={WEEK_TAG: date})

    return [follow]
