"""`polar profile`: show what a profile sets and why, and write one of your own."""

from pathlib import Path

import click

from polar_pipeline.commands.options import PROFILE_HELP, complete_profile, examples


@click.group()
def profile() -> None:
    """Profiles: list them, print every setting with its reason, write one of your own."""


@profile.command(name="list", epilog=examples("polar profile list"))
def list_profiles() -> None:
    """Print the bundled profiles."""
    from polar_pipeline.settings.profile import bundled_profiles, load_profile

    names = bundled_profiles()
    width = max(map(len, names))
    for name in names:
        click.echo(f"{name:{width}}  {load_profile(name).description}")


@profile.command(epilog=examples("polar profile show cpu", "polar profile show my.yaml"))
@click.argument("name_or_path", shell_complete=complete_profile)
def show(name_or_path: str) -> None:
    """Print a profile as YAML: every setting with its value, and the reason as a comment."""
    click.echo(_explained(name_or_path), nl=False)


@profile.command(epilog=examples("polar profile new my.yaml", "polar profile new large.yaml --from gpu"))
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "source",
    default="cpu",
    show_default=True,
    shell_complete=complete_profile,
    help=PROFILE_HELP,
)
def new(path: Path, source: str) -> None:
    """Write a profile of your own to PATH: every setting with its reason, named after the file."""
    from polar_pipeline.errors import InputError
    from polar_pipeline.settings.profile import bundled_profiles, name_of_file

    if path.suffix not in {".yaml", ".yml"}:
        raise InputError(f"{path} should end with .yaml: give the file another name.")
    name = name_of_file(path)
    if name in bundled_profiles():
        raise InputError(f"{name} is the name of a bundled profile: give {path} another name.")
    text = _explained(source, name)
    try:
        with path.open("x", encoding="utf-8") as handle:
            handle.write(text)
    except FileExistsError:
        raise InputError(f"{path} exists already: give another path, or remove it.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}): give a path in a folder of yours.") from None
    click.echo(f"{path}: profile {name}, with the settings of {source}; use it with --profile {path}")


def _explained(name_or_path: str, name: str | None = None) -> str:
    """The profile as commented YAML, under another name if one is given."""
    from polar_pipeline.defs.project import Project
    from polar_pipeline.settings.profile import bundled_profiles, profile_path
    from polar_pipeline.settings.yaml_files import commented, comments

    settings = Project.load(name_or_path).profile
    # only the comments of bundled profiles are known to say why a setting differs
    why = comments(profile_path(name_or_path)) if name_or_path in bundled_profiles() else {}
    return commented(settings.model_copy(update={"name": name or settings.name}), why)
