"""Partitions: one per language of the profile, heaviest first, because the last wave bounds a backfill."""

import dagster as dg

from polar_pipeline.settings.profile import Profile
from polar_pipeline.task.languages import language_codes


def language_partitions(profile: Profile) -> dg.StaticPartitionsDefinition:
    """The profile's languages as static partitions."""
    return dg.StaticPartitionsDefinition(language_codes(profile.languages))
