"""`polar status`: what is in a home, who works there, and what is not current. It writes nothing to the home."""

import sqlite3
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import click
import dagster as dg
from sqlalchemy.exc import DBAPIError

from polar_pipeline.commands.as_json import print_json
from polar_pipeline.commands.printing import driver_message, say_reasons
from polar_pipeline.defs.history import read_history
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.nodes import ACROSS
from polar_pipeline.defs.orphans import find_orphans
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.storage.home import Home
from polar_pipeline.storage.lock import who_works
from polar_pipeline.storage.usage import megabytes, usage

_SHOWN = 5  # orphans


@dataclass(frozen=True)
class Runs:
    """How many runs a home has in each state, and those whose process is gone; or why they cannot be read."""

    states: dict[str, int] = field(default_factory=dict)
    orphans: list[dg.DagsterRun] = field(default_factory=list)
    fault: str = ""


@dataclass(frozen=True)
class Results:
    """What is not current of a profile's results, and why; or why that is not known."""

    codes: list[str] = field(default_factory=list)
    stale: dict[str, dict[str, list[str]]] = field(default_factory=dict)  # reasons, by language and asset
    across: dict[str, list[str]] = field(default_factory=dict)  # of the report and the submission
    shared: dict[tuple[str, ...], list[str]] = field(default_factory=dict)  # the languages of each set of reasons
    fault: str = ""

    @property
    def current(self) -> bool:
        """Whether everything is."""
        return not (self.fault or self.stale or self.across)


def print_status(home: Home, check: bool, as_json: bool = False) -> int:
    """Print the state of the home. Returns 0, or with `check` 1 if anything is not current or not known."""
    results = {name: results_of(home, name) for name in home.profiles}
    if as_json:
        print_json(_as_dict(home, results))
    else:
        _say(home, results)
    return int(check and not (results and all(one.current for one in results.values())))


def runs_of(home: Home) -> Runs:
    """The runs of a home."""
    if not home.dagster.is_dir():
        return Runs()
    try:
        with read_history(home) as instance:
            states = Counter(run.status.value for run in instance.get_runs())
            return Runs(dict(sorted(states.items())), find_orphans(instance, home))
    except (InputError, DBAPIError, sqlite3.Error, OSError) as error:
        return Runs(fault=driver_message(error))


def results_of(home: Home, name: str) -> Results:
    """The results of a profile in a home."""
    try:
        project = Project.of_results(home, name)
        project.data  # noqa: B018 - without it nothing can be compared with the files
        lineage = Lineage(project)
        stale = {code: assets for code in project.codes if (assets := lineage.stale(code))}
        across = {asset: reasons for asset in ACROSS if (reasons := lineage.why_not_current(asset, None))}
        return Results(project.codes, stale, across, lineage.shared_reasons(stale))
    except InputError as error:
        return Results(fault=str(error))


def _as_dict(home: Home, results: dict[str, Results]) -> dict[str, Any]:
    runs = runs_of(home)
    profiles = {
        name: {"error": one.fault}
        if one.fault
        else {"languages": sorted(one.codes), "not_current": one.stale, "report_not_current": one.across}
        for name, one in results.items()
    }
    return {
        "home": str(home.root),
        "bytes": usage([home.root]).bytes if home.root.is_dir() else 0,
        "at_work": [vars(worker) for worker in who_works(home)],
        "runs": {"error": runs.fault} if runs.fault else runs.states,
        "orphans": [run.run_id for run in runs.orphans],
        "profiles": profiles,
    }


def _say(home: Home, results: dict[str, Results]) -> None:
    if not home.root.is_dir():
        click.echo(f"home       {home.root} does not exist: `polar run` makes it.")
        return
    parts = {path.name: usage([path]).bytes for path in sorted(home.root.iterdir())}
    click.echo(f"home       {home.root}  {megabytes(sum(parts.values()))}")
    large = sorted(((size, name) for name, size in parts.items() if size >= 50_000), reverse=True)
    if large:
        click.echo("           " + ", ".join(f"{name} {megabytes(size)}" for size, name in large))
    workers = [str(worker) for worker in who_works(home)] or ["nobody"]
    click.echo("at work    " + "\n           ".join(workers))
    _say_runs(runs_of(home), home)
    for name, one in results.items():
        _say_results(name, one)
    if not results:
        click.echo("profiles   none has results here: `polar run` makes some.")


def _say_runs(runs: Runs, home: Home) -> None:
    if runs.fault:
        click.echo(f"runs       cannot be read ({runs.fault}): see `polar doctor`.")
        return
    click.echo("runs       " + (", ".join(f"{count} {state}" for state, count in runs.states.items()) or "none"))
    if not home.dagster.is_dir():
        return
    if not runs.orphans:
        click.echo("orphans    none")
        return
    gone = "runs whose process is gone; `polar run` and `polar ui` mark them as failed"
    click.echo(f"orphans    {len(runs.orphans)} {gone}")
    for run in runs.orphans[:_SHOWN]:
        partition = run.tags.get("dagster/partition", "")
        click.echo(f"           {run.run_id}  {run.status.value}  {run.job_name} {partition}".rstrip())
    if len(runs.orphans) > _SHOWN:
        click.echo(f"           and {len(runs.orphans) - _SHOWN} more")


def _say_results(name: str, results: Results) -> None:
    """A profile's languages, current and stale."""
    title = f"profile    {name}  "
    if results.fault:
        click.echo(f"{title}not known: {results.fault}")
        return
    count, stale = len(results.codes), len(results.stale)
    rest = f"{' and '.join(results.across)} not current" if results.across else "report and submission current"
    click.echo(f"{title}{count - stale} of {count} languages current, {rest}")
    say_reasons(results.shared, indent="           ")
