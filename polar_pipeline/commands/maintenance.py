"""`polar status`, `polar doctor` and `polar prune`: their options."""

import sys

import click

from polar_pipeline.commands.options import HOME, examples
from polar_pipeline.storage.home import Home


@click.command(epilog=examples("polar status", "polar status --home /data/polar --check"))
@HOME
@click.option("--check", is_flag=True, help="End with exit code 1 if anything is not current.")
def status(check: bool) -> None:
    """Show the home: its size, who works in it, runs, orphans, and what is not current and why. Changes nothing."""
    from polar_pipeline.commands.status import print_status

    sys.exit(print_status(Home.from_environment(), check))


@click.command(epilog=examples("polar doctor", "polar doctor --repair"))
@HOME
@click.option("--repair", is_flag=True, help="Mend what can be mended without losing anything.")
def doctor(repair: bool) -> None:
    """Check this machine and the home. Exit code 3 if something is wrong that was not repaired."""
    from polar_pipeline.commands.doctor import examine

    sys.exit(examine(Home.from_environment(), repair))


@click.command(epilog=examples("polar prune --keep 3 --dry-run", "polar prune --keep 3"))
@HOME
@click.option("--keep", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each job and language.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted, and what that would free.")
def prune(keep: int, dry_run: bool) -> None:
    """Delete old runs with their logs, and adapters, scores and embeddings that no result needs.

    Results, ledgers, settings and backups stay.
    """
    from polar_pipeline.commands.prune import prune_home

    sys.exit(prune_home(Home.from_environment(), keep, dry_run))
