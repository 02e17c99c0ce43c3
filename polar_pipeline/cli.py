"""`polar`: thin commands over the functions that the assets call too.

Exit codes: 0 done, 1 something broke, 2 the input or a setting is wrong (one sentence says which), 130 interrupted.
"""

import sys
from pathlib import Path
from typing import NoReturn

import click

from polar_pipeline import __version__
from polar_pipeline.commands.export import export
from polar_pipeline.commands.maintenance import doctor, prune, status
from polar_pipeline.commands.profile import profile as profiles
from polar_pipeline.errors import InputError
from polar_pipeline.storage.files import is_full
from polar_pipeline.storage.home import Home

PROFILE = click.option(
    "--profile",
    envvar="POLAR_PROFILE",
    default="cpu",
    show_default=True,
    help="Bundled profile (demo, cpu, gpu) or path of a YAML file.",
)
LANGUAGES = click.option(
    "--language", "languages", multiple=True, metavar="CODE", help="A language's code; may be repeated."
)


def main() -> NoReturn:
    """Run a command; bad input is one sentence on stderr and exit code 2."""
    try:
        polar(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except InputError as error:
        click.echo(f"polar: {error}", err=True)
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("polar: interrupted; what was finished stays.", err=True)
        sys.exit(130)
    except Exception as error:
        home = Home.from_environment().root
        if not is_full(error, home):
            raise
        where = getattr(error, "filename", None) or home
        click.echo(
            f"polar: the disk of {where} is full: free space there and start again; what was finished stays.", err=True
        )
        sys.exit(2)
    sys.exit(0)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def polar() -> None:
    """From raw posts to decisions that hold on unseen data, one language at a time."""


@polar.command()
@LANGUAGES
@click.option("--all", "everything", is_flag=True, help="All languages of the profile.")
@PROFILE
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=None,
    help="Languages at a time; default: one per core, and one where models are trained on a GPU.",
)
@click.option("--force", is_flag=True, help="Compute again what is current too.")
def run(languages: tuple[str, ...], everything: bool, profile: str, jobs: int | None, force: bool) -> None:
    """Make whatever is not current of these languages, then the report and the submission."""
    from polar_pipeline.commands.run import default_jobs, run_pipeline
    from polar_pipeline.defs.project import Project

    if bool(languages) == everything:
        raise click.UsageError("name languages with --language CODE, or take all of them with --all.")
    project = Project.load(profile)
    codes = project.codes if everything else project.check_languages(languages)
    sys.exit(run_pipeline(project, codes, jobs or default_jobs(project.profile), force))


@polar.command()
@click.argument("posts", type=click.Path(path_type=Path))
@click.option("--language", required=True, metavar="CODE", help="The posts' language.")
@PROFILE
@click.option("--output", type=click.Path(path_type=Path), help="Where the CSV goes; default: the terminal.")
@click.option("--skip-bad", is_flag=True, help="Leave out rows that cannot be used, and list them.")
@click.option("--bad", type=click.Path(path_type=Path), help="With --skip-bad: a CSV of all rows that were left out.")
def predict(posts: Path, language: str, profile: str, output: Path | None, skip_bad: bool, bad: Path | None) -> None:
    """Label new posts: a CSV file with the columns id and text."""
    from polar_pipeline.commands.predict import predict_file
    from polar_pipeline.defs.project import Project

    if bad and not skip_bad:
        raise click.UsageError("--bad needs --skip-bad, without which no row is left out.")
    if bad and output and bad.resolve() == output.resolve():
        raise click.UsageError("--bad and --output name the same file.")
    project = Project.load(profile)
    project.check_languages((language,))
    sys.exit(predict_file(project, language, posts, output, skip_bad, bad))


@polar.command()
@click.argument("run_a", type=click.Path(path_type=Path))
@click.argument("run_b", type=click.Path(path_type=Path))
@LANGUAGES
def compare(run_a: Path, run_b: Path, languages: tuple[str, ...]) -> None:
    """Compare two runs, each named by its home folder, post by post."""
    from polar_pipeline.commands.compare import compare_homes

    sys.exit(compare_homes(run_a, run_b, languages))


@polar.command()
@PROFILE
@click.option("--dagster-port", type=int, default=3000, show_default=True)
@click.option("--mlflow-port", type=int, default=5000, show_default=True)
def ui(profile: str, dagster_port: int, mlflow_port: int) -> None:
    """Open Dagster and MLflow over this home, until Ctrl-C. A server that dies is started again."""
    from polar_pipeline.defs.project import Project
    from polar_pipeline.defs.ui import Ports, serve

    sys.exit(serve(Project.load(profile), profile, Ports(dagster_port, mlflow_port)))


@polar.group()
def synth() -> None:
    """Synthetic posts: what they would cost, and whether they help."""


@synth.command(name="plan")
@LANGUAGES
@PROFILE
def synth_plan(languages: tuple[str, ...], profile: str) -> None:
    """Print requests, tokens and dollars; nothing is sent. All languages of the profile unless some are named."""
    from polar_pipeline.commands.synth_plan import print_plan
    from polar_pipeline.defs.project import Project

    project = Project.load(profile)
    sys.exit(print_plan(project, project.check_languages(languages) if languages else project.codes))


@synth.command(name="evaluate")
@LANGUAGES
@PROFILE
def synth_evaluate(languages: tuple[str, ...], profile: str) -> None:
    """Train the linear backbone with several shares of synthetic posts, and say whether they help.

    Posts that are not there yet are made first, which costs what `polar synth plan` says.
    """
    from polar_pipeline.commands.synth import print_evaluation
    from polar_pipeline.defs.project import Project

    project = Project.load(profile)
    sys.exit(print_evaluation(project, project.check_languages(languages) if languages else project.codes))


@synth.command(name="retry")
@LANGUAGES
@PROFILE
def synth_retry(languages: tuple[str, ...], profile: str) -> None:
    """Let the next run ask again for what was refused, unreadable or cut off; sends nothing, and what was spent stays spent."""
    from polar_pipeline.commands.synth import retry
    from polar_pipeline.defs.project import Project

    project = Project.load(profile)
    sys.exit(retry(project, project.check_languages(languages) if languages else project.codes))


polar.add_command(profiles)


@polar.group()
def data() -> None:
    """The official release: fetch it, and see what is in it."""


@data.command()
def fetch() -> None:
    """Download the organisers' release into this home, verified file by file; goes on where it stopped."""
    from polar_pipeline.corpus.release import LICENCE_NOTICE, fetch_release

    click.echo(LICENCE_NOTICE)
    target = Home.from_environment().release
    files = fetch_release(target)
    click.echo(f"{len(files)} files, verified, in {target}")


@data.command()
@LANGUAGES
@PROFILE
def check(languages: tuple[str, ...], profile: str) -> None:
    """Validate the posts and print what is odd about them; all languages of the profile unless some are named."""
    from polar_pipeline.commands.data import check_data
    from polar_pipeline.defs.project import Project

    project = Project.load(profile)
    sys.exit(check_data(project, project.check_languages(languages) if languages else project.codes))


polar.add_command(export)
polar.add_command(status)
polar.add_command(doctor)
polar.add_command(prune)
