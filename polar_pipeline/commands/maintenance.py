"""`polar status`, `polar doctor` and `polar prune`: their options."""

import os
import sys
from pathlib import Path

import click

from polar_pipeline.storage.home import Home


def _use_home(_context: click.Context, _parameter: click.Parameter, folder: Path | None) -> None:
    if folder is not None:
        os.environ["POLAR_HOME"] = str(folder)


HOME = click.option(
    "--home",
    type=click.Path(path_type=Path, file_okay=False),
    expose_value=False,
    callback=_use_home,
    help="The home; default: $POLAR_HOME, or .polar in this folder.",
)


@click.command()
@HOME
@click.option("--check", is_flag=True, help="End with exit code 1 if anything is not current.")
def status(check: bool) -> None:
    """Show the home: its size, who works in it, runs, orphans, and what is not current and why. Changes nothing."""
    from polar_pipeline.commands.status import print_status

    sys.exit(print_status(Home.from_environment(), check))


@click.command()
@HOME
@click.option("--repair", is_flag=True, help="Mend what can be mended without losing anything.")
def doctor(repair: bool) -> None:
    """Check this machine and the home. Exit code 3 if something is wrong that was not repaired."""
    from polar_pipeline.commands.doctor import examine

    sys.exit(examine(Home.from_environment(), repair))


@click.command()
@HOME
@click.option("--keep", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each job and language.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted, and what that would free.")
def prune(keep: int, dry_run: bool) -> None:
    """Delete old runs with their logs, and adapters, scores and embeddings that no result needs.

    Results, ledgers, settings and backups stay.
    """
    from polar_pipeline.commands.prune import prune_home

    sys.exit(prune_home(Home.from_environment(), keep, dry_run))
