"""`polar prune`: deletes old runs and what no result needs, and says what that frees."""

from pathlib import Path

import click

from polar_pipeline.backbones.lora.checkpoints import unused_model_files
from polar_pipeline.curation.embedding import cache_name
from polar_pipeline.defs import history
from polar_pipeline.defs.history import OldRuns
from polar_pipeline.defs.instance import open_instance, prepare_home
from polar_pipeline.defs.orphans import is_served, unfinished_runs
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.pretrained.encoder import cache_file
from polar_pipeline.settings.backbones import EncoderSettings
from polar_pipeline.storage.home import Home
from polar_pipeline.storage.lock import maintaining
from polar_pipeline.storage.usage import SQLITE, Usage, delete, megabytes, usage


def prune_home(home: Home, keep: int, dry_run: bool) -> int:
    """Delete what can go, or only say what would. Results, ledgers, settings and backups stay. Returns the exit code.

    Raises InputError while anything works in the home.
    """
    if not home.dagster.is_dir():
        raise InputError(f"{home.root} is no home: nothing was run there.")
    prepare_home(home)
    with maintaining(home, "polar prune"):
        with open_instance(home.dagster) as instance:
            if is_served(instance, home):
                raise InputError(f"a Dagster daemon works in {home.root}: end it first.")
            if runs := unfinished_runs(instance):
                raise InputError(
                    f"{len(runs)} runs in {home.root} have not finished: wait until they have, or mark those whose "
                    "process is gone as failed with `polar doctor --repair`."
                )
            old = history.find_old_runs(instance, home, keep)
        files = history.run_files(home, old) | unused_files(home)
        freed = {part: usage(paths) for part, paths in files.items()}
        freed["databases"] = Usage(0, _shrink(home, old, dry_run))
        if not dry_run:
            for path in (path for paths in files.values() for path in paths):
                delete(path, home.root) if path.exists() else None
    _say(freed, old, keep, dry_run)
    return 0


def unused_files(home: Home) -> dict[str, list[Path]]:
    """Files that no result of any profile needs, by what they are."""
    found = list(unused_model_files(home.adapters, _stored_json(home)))
    embedders = _embedders(home)
    caches = [path for path in home.embeddings.glob("*") if embedders is not None and path.name not in embedders]
    return {
        "adapters": sorted(found),
        "embeddings": sorted(caches),
        "old logs": sorted((home.root / "logs").glob("*.log.[0-9]*")),
    }


def _stored_json(home: Home) -> str:
    """All decisions, references and provenances of all profiles."""
    found = sorted(home.root.glob("profiles/*/tables/*/*.json"))
    return "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in found)


def _embedders(home: Home) -> set[str] | None:
    """Files of the embeddings that some profile uses; None where that cannot be known of all profiles."""
    try:
        profiles = [Project.of_results(home, name).profile for name in home.profiles]
    except InputError:
        return None
    encoders = [entry for one in profiles for entry in one.backbones if isinstance(entry, EncoderSettings)]
    files = {cache_file(entry.encoding) for entry in encoders}
    return files | {name for one in profiles if (name := cache_name(one.curation.embedder))}


def _shrink(home: Home, old: OldRuns, dry_run: bool) -> int:
    """By how many bytes the databases get smaller; with `dry_run`, copies of them do."""
    before = _bytes(history.databases(home), old)
    if not dry_run:
        looked_at = history.databases(home)
        history.delete_runs(home, old)
        return before - _bytes(looked_at, old)
    with history.copied_history(home, old) as copy:
        looked_at = history.databases(copy)
        history.delete_runs(copy, old)
        return before - _bytes(looked_at, old)


def _bytes(files: list[Path], old: OldRuns) -> int:
    """Bytes of databases and their logs, but for those of runs that are deleted, which are counted as files."""
    kept = [file for file in files if file.stem not in old.dagster]
    return usage(Path(f"{file}{end}") for file in kept for end in SQLITE[:2]).bytes


def _say(freed: dict[str, Usage], old: OldRuns, keep: int, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    for part, found in freed.items():
        click.echo(f"{part:20}  {found if found.files else megabytes(found.bytes)}")
    total = Usage(sum(one.files for one in freed.values()), sum(one.bytes for one in freed.values()))
    click.echo(f"{'in all':20}  {total}")
    click.echo(
        f"{len(old.dagster)} runs {would}deleted in Dagster and {len(old.mlflow)} in MLflow; the newest {keep} of each "
        "job and language stay, and those that hold the newest results."
    )
