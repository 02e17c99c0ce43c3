"""`polar doctor`: checks this machine and a home, one line for each check, and mends what loses nothing.

Ledgers and databases are never deleted: their lines say what a person can do.
"""

import os
import platform
import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
from packaging.requirements import Requirement
from sqlalchemy.exc import DBAPIError

from polar_pipeline.backbones.artifacts import damaged_adapters
from polar_pipeline.commands.printing import driver_message
from polar_pipeline.defs.history import read_history
from polar_pipeline.defs.instance import (
    DATABASES,
    is_outdated,
    is_whole,
    make_missing,
    migrate,
    open_instance,
    storage_settings,
)
from polar_pipeline.defs.orphans import close_orphans, find_orphans
from polar_pipeline.endpoint.ledger import Ledger
from polar_pipeline.errors import ExitCode, InputError
from polar_pipeline.storage.home import Home
from polar_pipeline.storage.lock import maintaining
from polar_pipeline.storage.outputs import Outputs, output_name
from polar_pipeline.storage.usage import delete, leftovers, megabytes
from polar_pipeline.tracking.base import Tracker
from polar_pipeline.tracking.mlflow_tracker import find_killed
from polar_pipeline.tracking.store import is_old_store, locked, open_store, sqlite_url

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LITTLE = 2_000_000_000  # bytes; a large adapter and its checkpoint need as much
_PACKAGE = "polar-pipeline"
_SHOWN = 3  # of many things of one kind


class Finding(NamedTuple):
    """Something that is wrong. `mend` mends it, if that can be done without a person."""

    text: str
    mend: Callable[[], object] | None = None


def examine(home: Home, repair: bool) -> ExitCode:
    """Print a line for each check, and with `repair` mend. Returns 0 if all is well by the end, otherwise 3."""
    if not repair:
        return _report(home, repair)
    if not home.root.is_dir():
        raise InputError(f"{home.root} does not exist, so there is nothing to repair.")
    with maintaining(home, "polar doctor"):
        return _report(home, repair)


def _report(home: Home, repair: bool) -> ExitCode:
    checks: dict[str, Callable[[Home], list[Finding]]] = {"packages": _packages, "disk": _disk}
    if home.root.is_dir():
        checks |= {
            "access": _access,
            "Dagster": _dagster,
            "MLflow": _mlflow,
            "ledger": _ledger,
            "results": _results,
            "adapters": _adapters,
            "leftovers": _leftovers,
            "runs": _runs,
        }
    else:
        click.echo(f"home        {home.root} does not exist yet: `polar run` makes it")
    well = True
    for title, check in checks.items():
        try:
            found = check(home)
        except InputError as error:
            found = [Finding(str(error))]
        except (DBAPIError, sqlite3.Error, OSError) as error:
            found = [Finding(f"cannot be read ({driver_message(error)}): see the lines above, or allow it")]
        if not found:
            click.echo(f"{title:10}  ok")
        for finding in found:
            well &= _handle(title, finding, repair)
    if not well and not repair:
        click.echo("`polar doctor --repair` mends what is marked with *.")
    return ExitCode.DONE if well else ExitCode.BROKEN_ENVIRONMENT


def _handle(title: str, finding: Finding, repair: bool) -> bool:
    """Print a finding and mend it if that is wanted. Returns whether it is mended."""
    if not (repair and finding.mend):
        click.echo(f"{title:10}{' *' if finding.mend else '  '}{finding.text}")
        return False
    try:
        finding.mend()
    except (InputError, OSError) as error:
        click.echo(f"{title:10}  {finding.text}; it cannot be repaired: {error}")
        return False
    click.echo(f"{title:10}  {finding.text}; repaired")
    return True


def _packages(_: Home) -> list[Finding]:
    """Python and the installed packages, compared with what this package asks for."""
    try:
        own = metadata.metadata(_PACKAGE)
    except metadata.PackageNotFoundError:
        return [Finding("the package polar-pipeline is not installed: install it with `pip install`")]
    wanted = [Requirement(text) for text in metadata.requires(_PACKAGE) or []]
    wanted = [one for one in wanted if not one.marker or one.marker.evaluate({"extra": ""})]
    found = []
    if not Requirement(f"python{own['Requires-Python']}").specifier.contains(platform.python_version()):
        found.append(f"python is {platform.python_version()}, not {own['Requires-Python']}")
    for one in wanted:
        try:
            version = metadata.version(one.name)
        except metadata.PackageNotFoundError:
            found.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(version, prereleases=True):
            found.append(f"{one.name} is {version}, not {one.specifier}")
    return [Finding(f"{'; '.join(found)}: install the package again")] if found else []


def _disk(home: Home) -> list[Finding]:
    there = next(path for path in (home.root, *home.root.parents) if path.exists())
    free = shutil.disk_usage(there).free
    text = f"only {megabytes(free)} are free on the disk of {home.root}: free space, `polar prune` helps"
    return [Finding(text)] if free < _LITTLE else []


def _access(home: Home) -> list[Finding]:
    """Whether this user may write the home's folders and databases."""
    paths = [home.root, *(path for path in home.root.rglob("*") if path.is_dir() or path.suffix == ".db")]
    closed = [path for path in paths if not os.access(path, os.W_OK)]
    return [Finding(f"{_some(closed)} cannot be written: allow it, or use another home")] if closed else []


def _dagster(home: Home) -> list[Finding]:
    """Settings and databases: whether they are there, whole, and of the installed version."""
    if not home.dagster.is_dir():
        return []
    found = []
    if storage_settings(home.dagster):
        with open_instance(home.dagster):
            return []
    for name in DATABASES:
        path = home.dagster / name
        if not path.exists():
            found.append(Finding(f"{path} is missing, and what was in it", lambda: make_missing(home.dagster)))
            continue
        try:
            if is_outdated(path, whole=True):
                found.append(Finding(f"{path} is of an older version of Dagster", lambda: migrate(home)))
        except InputError as error:
            found.append(Finding(str(error)))
    damaged = [path for path in sorted((home.dagster / "history/runs").glob("*-*.db")) if not is_whole(path)]
    if damaged:
        found.append(Finding(f"{_some(damaged)} damaged: restore or delete; only the log of that run is lost"))
    return found


def _mlflow(home: Home) -> list[Finding]:
    if not is_old_store(home.mlflow_database):
        return []
    return [Finding(f"{home.mlflow_database} is of an older version of MLflow", lambda: _open_store(home))]


def _open_store(home: Home) -> "MlflowClient":
    """MLflow's client for the home's own store, which is migrated if it is old."""
    with locked(home.mlflow_database.with_suffix(".lock")):
        return open_store(sqlite_url(home.mlflow_database))


def _ledger(home: Home) -> list[Finding]:
    if home.ledgers.is_dir():
        with Ledger(home.ledgers, "eng", read_only=True):
            pass
    return []


def _results(home: Home) -> list[Finding]:
    found = []
    for profile in home.profiles:
        outputs = Outputs(home.root, home.results(profile).tables)
        for (asset, language), text in outputs.problems().items():
            named = f"profile {profile}, {output_name(asset, language)}: {text}"
            found.append(Finding(named, partial(outputs.remove, asset, language)))
    return found


def _adapters(home: Home) -> list[Finding]:
    return [
        Finding(f"{path} was changed after it was written", partial(delete, path, home.root))
        for path in damaged_adapters(home.adapters)
    ]


def _leftovers(home: Home) -> list[Finding]:
    paths = leftovers(home.root)
    if not paths:
        return []
    text = f"{len(paths)} temporary files of processes that were killed ({_some(paths)})"
    return [Finding(text, lambda: _delete_all(home, paths))]


def _delete_all(home: Home, paths: list[Path]) -> None:
    for path in paths:
        delete(path, home.root)


def _runs(home: Home) -> list[Finding]:
    """Unfinished runs whose process is gone, in Dagster and in MLflow."""
    orphans = list[str]()
    if home.dagster.is_dir() and (storage_settings(home.dagster) or (home.dagster / DATABASES[0]).exists()):
        with read_history(home) as instance:
            orphans = [run.run_id for run in find_orphans(instance, home)]
    killed, found = find_killed(home.mlflow_database, orphans), []
    if orphans:
        text = f"{len(orphans)} runs are unfinished and their process is gone ({_some(orphans)})"
        found.append(Finding(text, lambda: _fail_orphans(home)))
    if killed:
        text = f"{len(killed)} runs in MLflow are open and their process is gone ({_some(killed)})"
        found.append(Finding(text, lambda: _end_killed(home, killed)))
    return found


def _fail_orphans(home: Home) -> None:
    with open_instance(home.dagster) as instance:
        close_orphans(instance, home, Tracker())  # what they left open in MLflow is a finding of its own


def _end_killed(home: Home, killed: list[str]) -> None:
    client = _open_store(home)
    for run in killed:
        client.set_terminated(run, "KILLED")


def _some(things: list[Path] | list[str]) -> str:
    more = f" and {len(things) - _SHOWN} more" if len(things) > _SHOWN else ""
    return ", ".join(str(one) for one in things[:_SHOWN]) + more
