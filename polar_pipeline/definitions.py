"""The one Dagster entry point: `dg dev`, the webserver, the daemon and run workers all load `defs` from here.

The profile comes from $POLAR_PROFILE and the home from $POLAR_HOME, read when Dagster asks for the definitions.
"""

import dagster as dg

from polar_pipeline.defs.build import build_defs
from polar_pipeline.defs.project import Project


@dg.definitions
def defs() -> dg.Definitions:
    """The assets, checks, jobs, schedules and sensors of the profile in the environment."""
    return build_defs(Project.load())
