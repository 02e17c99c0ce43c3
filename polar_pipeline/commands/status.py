"""`polar status`: what is in a home, who works there, and what is not current. It writes nothing to the home."""

import sqlite3
from collections import Counter

import click
from sqlalchemy.exc import DBAPIError

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


def print_status(home: Home, check: bool) -> int:
    """Print the state of the home. Returns 0, or with `check` 1 if anything is not current or not known."""
    if not home.root.is_dir():
        click.echo(f"home       {home.root} does not exist: `polar run` makes it.")
        return int(check)
    parts = {path.name: usage([path]).bytes for path in sorted(home.root.iterdir())}
    click.echo(f"home       {home.root}  {megabytes(sum(parts.values()))}")
    large = sorted(((size, name) for name, size in parts.items() if size >= 50_000), reverse=True)
    if large:
        click.echo("           " + ", ".join(f"{name} {megabytes(size)}" for size, name in large))
    workers = [str(worker) for worker in who_works(home)] or ["nobody"]
    click.echo("at work    " + "\n           ".join(workers))
    _say_runs(home)
    current = [_say_profile(home, name) for name in home.profiles]
    if not current:
        click.echo("profiles   none has results here: `polar run` makes some.")
    return int(check and not (current and all(current)))


def _say_runs(home: Home) -> None:
    if not home.dagster.is_dir():
        click.echo("runs       none")
        return
    try:
        with read_history(home) as instance:
            states = Counter(run.status.value for run in instance.get_runs())
            orphans = find_orphans(instance, home)
    except (InputError, DBAPIError, sqlite3.Error, OSError) as error:
        click.echo(f"runs       cannot be read ({driver_message(error)}): see `polar doctor`.")
        return
    click.echo("runs       " + (", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none"))
    if not orphans:
        click.echo("orphans    none")
        return
    click.echo(f"orphans    {len(orphans)} runs whose process is gone; `polar run` and `polar ui` mark them as failed")
    for run in orphans[:_SHOWN]:
        partition = run.tags.get("dagster/partition", "")
        click.echo(f"           {run.run_id}  {run.status.value}  {run.job_name} {partition}".rstrip())
    if len(orphans) > _SHOWN:
        click.echo(f"           and {len(orphans) - _SHOWN} more")


def _say_profile(home: Home, name: str) -> bool:
    """A profile's languages, current and stale. Returns whether everything is current."""
    title = f"profile    {name}  "
    try:
        project = Project.of_results(home, name)
        project.data  # noqa: B018 - without it nothing can be compared with the files
        lineage = Lineage(project)
        stale = {code: list(assets) for code in project.codes if (assets := lineage.stale(code))}
        across = [asset for asset in ACROSS if lineage.why_not_current(asset, None)]
    except InputError as error:
        click.echo(f"{title}not known: {error}")
        return False
    rest = f"{' and '.join(across)} not current" if across else "report and submission current"
    click.echo(f"{title}{len(project.codes) - len(stale)} of {len(project.codes)} languages current, {rest}")
    say_reasons(lineage.shared_reasons(stale), indent="           ")
    return not stale and not across
