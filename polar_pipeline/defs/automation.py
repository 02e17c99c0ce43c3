"""What happens by itself: the report and the submission follow when languages finish, and the report should stay fresh."""

from datetime import timedelta

import dagster as dg

# After any language has news and while none is being computed: not `eager()`, which would wait for all 22 to exist, and
# not `on_cron`, which fires after the first language.
FOLLOWS_LANGUAGES = (
    dg.AutomationCondition.any_deps_updated().since_last_handled()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("follows_languages")

# The weekly schedule retrains; a report that is older than that and a day means it did not.
REPORT_FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=8))
