"""Sensors, on from the start: the release's files are observed, and what killed processes left unfinished is closed."""

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from polar_pipeline.defs.io_managers import RELEASE
from polar_pipeline.defs.orphans import close_orphans
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.storage.home import Home
from polar_pipeline.tracking.base import Tracker


def observe_release(project: Project) -> dg.SensorDefinition:
    """Tells Dagster every minute which of the release's files have changed, so that the UI shows what is stale."""

    @dg.sensor(
        name="observe_release",
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Observes the files of every language; a run is not started.",
    )
    def observe(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        key = dg.AssetKey([project.profile.name, RELEASE])
        try:
            versions = {code: fingerprint(project.release_sha256(code)) for code in project.codes}
        except InputError as error:
            return dg.SkipReason(str(error))
        known = dict(line.split(" ") for line in (context.cursor or "").splitlines())
        events = [
            dg.AssetObservation(key, partition=code, tags={DATA_VERSION_TAG: version})
            for code, version in versions.items()
            if known.get(code) != version
        ]
        cursor = "\n".join(f"{code} {version}" for code, version in versions.items())
        return dg.SensorResult(asset_events=events, cursor=cursor)

    return observe


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
    """Fails runs whose process is gone, so that nothing waits for them."""

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
