"""What happens by itself: the release's files are observed, and the report and the submission follow the languages."""

from datetime import timedelta

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from polar_pipeline.defs.io_managers import RELEASE
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.storage.fingerprint import fingerprint

# After any language has news and while none is being computed: not `eager()`, which would wait for all 22 to exist, and
# not `on_cron`, which fires after the first language. Only predictions are news: a backfill may make what lies before
# them in several runs. The report itself leaves out a language that a check refused.
FOLLOWS_LANGUAGES = (
    dg.AutomationCondition.any_deps_updated()
    .allow(dg.AssetSelection.key_substring("ensemble_predictions"))
    .since_last_handled()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("follows_languages")

# The weekly schedule retrains; a report that is older than that and a day means it did not.
REPORT_FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=8))


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
