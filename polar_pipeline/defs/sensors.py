"""Sensors: what killed processes left unfinished is closed, and the automation conditions are evaluated."""

import dagster as dg

from polar_pipeline.defs.orphans import close_orphans
from polar_pipeline.storage.home import Home
from polar_pipeline.tracking.base import Tracker


@dg.run_failure_sensor(
    name="close_killed_runs",
    default_status=dg.DefaultSensorStatus.RUNNING,
    monitor_all_code_locations=False,
    description="A process that was killed cannot close its MLflow runs; this marks them KILLED.",
)
def close_killed_runs(context: dg.RunFailureSensorContext, tracker: dg.ResourceParam[Tracker]) -> None:
    """Mark the failed Dagster run's open MLflow runs KILLED."""
    closed = tracker.close_killed(context.dagster_run.run_id)
    context.log.info(f"closed {closed} MLflow runs of {context.dagster_run.run_id}")


def close_orphaned_runs(home: Home) -> dg.SensorDefinition:
    """Fails runs whose process is gone, so that nothing waits for them; on from the start."""

    @dg.sensor(
        name="close_orphaned_runs",
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="A run whose process and code server were killed stays unfinished; this marks it as failed.",
    )
    def sensor(context: dg.SensorEvaluationContext, tracker: dg.ResourceParam[Tracker]) -> dg.SkipReason:
        closed = close_orphans(context.instance, home, tracker, served=True)  # a daemon asks, so one is there
        return dg.SkipReason(f"runs whose process is gone: {', '.join(closed) or 'none'}")

    return sensor


def automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """Evaluates the conditions of the report and the submission; on from the start."""
    return dg.AutomationConditionSensorDefinition(
        "follow_languages",
        target=dg.AssetSelection.groups("evidence"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        run_tags={"polar/started_by": "follow_languages"},
    )
