"""The report and the submission follow the languages by themselves."""

from datetime import timedelta

import dagster as dg

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


def automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """Evaluates the conditions of the report and the submission."""
    return dg.AutomationConditionSensorDefinition(
        "follow_languages",
        target=dg.AssetSelection.groups("evidence"),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        run_tags={"polar/started_by": "follow_languages"},
    )
