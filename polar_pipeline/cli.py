"""`polar`: thin commands over the functions that the assets call too.

| exit code | meaning |
|---|---|
| 0 | everything that was asked for is done |
| 1 | some languages failed, or a requested language is missing from the submission |
| 2 | wrong use or wrong input: a file, a row, a setting |
| 3 | the environment is broken: disk full, home not writable or in use, database damaged, package missing |
| 130 | interrupted |

2 and 3 are one sentence on stderr. Any other exception is a bug and shows its traceback.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from polar_pipeline import __version__
from polar_pipeline.commands.init_command import init
from polar_pipeline.commands.options import (
    DATA,
    HOME,
    JSON,
    LANGUAGES,
    chosen_languages,
    complete_language,
    complete_results,
    examples,
    file_format,
    project_options,
)
from polar_pipeline.commands.profile import profile
from polar_pipeline.commands.synth_command import synth
from polar_pipeline.errors import ExitCode
from polar_pipeline.storage.files import known_problem
from polar_pipeline.storage.home import Home

if TYPE_CHECKING:
    from polar_pipeline.defs.project import Project
    from polar_pipeline.settings.files import FileFormat

_EPILOG = """\b
Exit codes:
  0    everything that was asked for is done
  1    some languages failed, or are missing from the submission
  2    wrong use or wrong input
  3    broken environment: disk full, home not writable or in use,
       database damaged, package missing
  130  interrupted; what was finished stays

\b
Completion of commands, profiles and languages (bash; or zsh_source,
fish_source):
  eval "$(_POLAR_COMPLETE=bash_source polar)"
"""


def main() -> NoReturn:
    """Run a command; ends with its exit code, and says what a person can mend in one sentence on stderr."""
    try:
        code = polar(prog_name="polar", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("polar: interrupted; what was finished stays.", err=True)
        code = ExitCode.INTERRUPTED
    except Exception as error:
        if (problem := known_problem(error)) is None:
            raise
        click.echo(f"polar: {problem}", err=True)
        code = problem.exit_code
    sys.exit(code or ExitCode.DONE)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.version_option(__version__)
@HOME
@DATA
def polar() -> None:
    """From raw posts to decisions that hold on unseen data, one language at a time."""


@polar.command(
    epilog=examples(
        "polar run --all --profile demo",
        "polar run --language deu --language swa --jobs 2",
        "polar run --all --profile my.yaml --home /srv/polar",
    )
)
@LANGUAGES
@click.option("--all", "everything", is_flag=True, help="All languages of the profile.")
@project_options
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=None,
    help="Languages at a time; default: one per core, and one where models are trained on a GPU.",
)
@click.option("--force", is_flag=True, help="Compute again what is current too.")
@JSON
def run(
    project: "Project", languages: tuple[str, ...], everything: bool, jobs: int | None, force: bool, as_json: bool
) -> int:
    """Make whatever is not current of these languages, then the report and the submission.

    The same command goes on after an interruption, takes in changed posts and settings, and repairs damaged files.
    """
    from polar_pipeline.commands.run import run_pipeline

    if bool(languages) == everything:
        raise click.UsageError("name languages with --language CODE, or take all of them with --all.")
    codes = project.codes if everything else project.check_languages(languages)
    if not as_json:
        return run_pipeline(project, codes, jobs, force)
    from polar_pipeline.commands.as_json import only_json, print_json, results

    with only_json():
        code = run_pipeline(project, codes, jobs, force)
    print_json({"exit_code": int(code), **results(project, codes)})
    return code


@polar.command(
    epilog=examples(
        "polar predict posts.csv --language deu",
        "polar predict posts.csv --language deu --output labels.csv",
        "polar predict posts.csv --language deu --skip-bad --bad bad.csv",
        "polar predict - --language-column lang < posts.jsonl",
    )
)
@click.argument("posts", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--language",
    metavar="CODE",
    shell_complete=complete_language,
    help="The language of all posts; default: the only one of the profile, or that of each row.",
)
@click.option(
    "--language-column",
    metavar="COLUMN",
    help="The column with the languages of posts in several; default: that of the task card, or `language`.",
)
@click.option("--text", metavar="COLUMN", help="The column with the posts; default: that of the task card.")
@click.option("--id", "id_", metavar="COLUMN", help="The column that names them; default: id, else the row's number.")
@file_format
@project_options
@click.option("--output", type=click.Path(path_type=Path), help="Where the CSV goes; default: the terminal.")
@click.option("--skip-bad", is_flag=True, help="Leave out rows that cannot be used, and list them.")
@click.option("--bad", type=click.Path(path_type=Path), help="With --skip-bad: a CSV of all rows that were left out.")
def predict(
    project: "Project",
    posts: Path,
    language: str | None,
    language_column: str | None,
    text: str | None,
    id_: str | None,
    form: "FileFormat",
    output: Path | None,
    skip_bad: bool,
    bad: Path | None,
) -> int:
    """Label new posts: a file with a row each (CSV, TSV, JSON lines, Parquet), or - for standard input.

    The output has the columns id, the label, probability, margin and review, then the file's other columns.
    """
    from polar_pipeline.commands.new_posts import Reading
    from polar_pipeline.commands.predict import predict_file

    if bad and not skip_bad:
        raise click.UsageError("--bad needs --skip-bad, without which no row is left out.")
    for option, file in (("--output", output), ("--bad", bad)):
        if file and file.exists() and file.resolve() == posts.resolve():
            raise click.UsageError(f"{option} names the file of the posts, which would be written over: name another.")
    if bad and output and bad.resolve() == output.resolve():
        raise click.UsageError("--bad and --output name the same file.")
    if language and language_column:
        raise click.UsageError("--language says it of all posts and --language-column of each: give one of them.")
    codes = project.codes if language is None else project.check_languages((language,))
    path = Path("/dev/stdin") if str(posts) == "-" else posts
    return predict_file(project, codes, path, output, skip_bad, bad, Reading(text, id_, language_column, form))


@polar.command(
    epilog=examples(
        "polar compare cpu laptop",
        "polar compare cpu my.yaml --language deu",
        "polar compare .polar /backup/polar:cpu",
    )
)
@click.argument("a", shell_complete=complete_results)
@click.argument("b", shell_complete=complete_results)
@LANGUAGES
@HOME
@JSON
def compare(a: str, b: str, languages: tuple[str, ...], as_json: bool) -> int:
    """Compare the decisions of two profiles, or of two homes, post by post.

    A and B are each a profile with results in this home (its name, or the path of its YAML file), a home folder that
    holds the results of one profile, or HOME:PROFILE. A name that is both is a profile; ./NAME is the folder.

    Prints the settings that differ, as they were when the decisions were made, and the difference of the nested
    out-of-fold macro-F1 with its paired 95% interval.
    """
    from polar_pipeline.commands.compare import compare_runs

    return compare_runs(a, b, languages, as_json)


@polar.command(epilog=examples("polar ui", "polar ui --profile my.yaml --dagster-port 3001 --mlflow-port 5001"))
@project_options
@click.option("--dagster-port", type=int, default=3000, show_default=True)
@click.option("--mlflow-port", type=int, default=5000, show_default=True)
def ui(project: "Project", dagster_port: int, mlflow_port: int) -> int:
    """Open Dagster and MLflow over this home, until Ctrl-C. A server that dies is started again."""
    from polar_pipeline.defs.processes.ui import Ports, serve

    return serve(project, Ports(dagster_port, mlflow_port))


@polar.group()
def data() -> None:
    """The official release: fetch it, and see what is in it."""


@data.command(epilog=examples("polar data fetch", "polar data fetch --home /srv/polar"))
@HOME
def fetch() -> None:
    """Download the organisers' release into this home, verified file by file; goes on where it stopped."""
    from polar_pipeline.corpus.release import LICENCE_NOTICE, fetch_release

    click.echo(LICENCE_NOTICE)
    target = Home.from_environment().release
    files = fetch_release(target)
    click.echo(f"{len(files)} files, verified, in {target}")


@data.command(epilog=examples("polar data check", "polar data check --language deu --data ~/polar-release"))
@chosen_languages
def check(project: "Project", codes: list[str]) -> int:
    """Validate the posts and print what is odd about them; all languages of the profile unless some are named."""
    from polar_pipeline.commands.data import check_data

    return check_data(project, codes)


@polar.command(epilog=examples("polar export", "polar export --profile my.yaml --to tables/"))
@project_options
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where the files go; default: export/ beside the report.",
)
def export(project: "Project", folder: Path | None) -> None:
    """Write the report's tables (CSV, LaTeX), its figures (PNG, SVG) and all errors (CSV) of finished languages."""
    from polar_pipeline.defs.assets.evidence import load_results
    from polar_pipeline.report.evidence import read_test_labels
    from polar_pipeline.report.export import export_report

    results = load_results(project)
    labels = {code: read_test_labels(project.data, code, project.card) for code in results.present}
    target = folder or project.results.root / "export"
    files = export_report(target, results, labels, project.profile, project.card)
    click.echo(f"{len(files)} files of {len(results.present)} languages in {target}; README.txt there explains them.")
    for code, reason in results.absent.items():
        click.echo(f"left out: {code}: {reason}", err=True)


@polar.command(epilog=examples("polar status", "polar status --home /data/polar --check"))
@HOME
@click.option("--check", is_flag=True, help="End with exit code 1 if anything is not current.")
@JSON
def status(check: bool, as_json: bool) -> int:
    """Show the home: its size, who works in it, runs, orphans, and what is not current and why. Changes nothing."""
    from polar_pipeline.commands.status import print_status

    return print_status(Home.from_environment(), check, as_json)


@polar.command(epilog=examples("polar doctor", "polar doctor --repair"))
@HOME
@click.option("--repair", is_flag=True, help="Mend what can be mended without losing anything.")
def doctor(repair: bool) -> int:
    """Check this machine and the home. Exit code 3 if something is wrong that was not repaired."""
    from polar_pipeline.commands.doctor import examine

    return examine(Home.from_environment(), repair)


@polar.command(epilog=examples("polar prune --keep 3 --dry-run", "polar prune --keep 3"))
@HOME
@click.option("--keep", type=click.IntRange(min=1), default=3, show_default=True, help="Runs of each job and language.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted, and what that would free.")
def prune(keep: int, dry_run: bool) -> int:
    """Delete old runs with their logs, and adapters, scores and embeddings that no result needs.

    Results, ledgers, settings and backups stay.
    """
    from polar_pipeline.commands.prune import prune_home

    return prune_home(Home.from_environment(), keep, dry_run)


polar.add_command(init)
polar.add_command(profile)
polar.add_command(synth)
