"""Partitions: one per language of the profile, heaviest first, because the last wave bounds a backfill."""

import dagster as dg

from polar_pipeline.defs.project import Project


def language_partitions(project: Project) -> dg.StaticPartitionsDefinition:
    """The profile's languages as static partitions."""
    return dg.StaticPartitionsDefinition(project.codes)
