"""The Dagster instance of a home: `$POLAR_HOME/dagster`, with the settings that ship with the project."""

import os
import socket
from importlib import resources
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.instance import InstanceRef

import polar_pipeline
from polar_pipeline.defs.event_log import EventLog
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.storage.home import Home

OWNER_HOST, OWNER_PROCESS = "polar/host", "polar/pid"


def project_file(name: str) -> Path:
    """`dagster.yaml` or `workspace.yaml`: inside an installed package, or beside it in a checkout."""
    packaged = Path(str(resources.files("polar_pipeline") / name))
    return packaged if packaged.is_file() else Path(polar_pipeline.__file__).parents[1] / name


def prepare_home(home: Home) -> dict[str, str]:
    """Make the instance's folder; returns the environment that processes working in this home need.

    A `dagster.yaml` that is there is kept, so that a home can have settings of its own.
    """
    settings = home.dagster / "dagster.yaml"
    if not settings.exists():
        write_atomic(settings, project_file("dagster.yaml").read_bytes())
    return {"POLAR_HOME": str(home.root), "DAGSTER_HOME": str(home.dagster), "MLFLOW_DISABLE_TELEMETRY": "true"}


def open_instance(folder: Path) -> dg.DagsterInstance:
    """The instance in `folder`, with our faster event log, which writes the same files as Dagster's own."""
    where = {"base_dir": str(folder / "history" / "runs")}  # where Dagster itself puts it
    history: dict[str, Any] = {"module": EventLog.__module__, "class": EventLog.__name__, "config": where}
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder), overrides={"event_log_storage": history}))


def owner_tags() -> dict[str, str]:
    """Tags that say which process executes a run."""
    return {OWNER_HOST: socket.gethostname(), OWNER_PROCESS: str(os.getpid())}


def fail_orphans(instance: dg.DagsterInstance) -> list[str]:
    """Fail runs of this machine whose process is gone (it was killed); returns their ids.

    The daemon watches only runs that it launched itself, so `polar run` looks after its own.
    """
    started = instance.get_runs(
        dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED], tags={OWNER_HOST: socket.gethostname()})
    )
    orphans = [run for run in started if not _alive(int(run.tags[OWNER_PROCESS]))]
    for run in orphans:
        instance.report_run_failed(run, "The process that executed this run was killed.")
    return [run.run_id for run in orphans]


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
