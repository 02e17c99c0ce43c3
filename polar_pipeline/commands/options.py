"""Options that several commands of `polar` share, their shell completion, and the form of their examples."""

import functools
import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def complete_profile(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's signature
    """Bundled profiles by name, and YAML files by path, in folders one level below too."""
    from polar_pipeline.settings.profile import bundled_profiles

    start = glob.escape(incomplete)
    files = [path for pattern in (f"{start}*", f"{start}*/*") for path in glob.glob(pattern)]  # noqa: PTH207 - as typed
    names = [name for name in bundled_profiles() if name.startswith(incomplete)]
    return [CompletionItem(name) for name in (*names, *sorted(files)) if name in names or is_yaml(name)]


def complete_language(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001 - click's signature
    """Codes of the task's languages, with their English names."""
    from polar_pipeline.task.languages import LANGUAGES as REGISTRY

    return [CompletionItem(code, help=REGISTRY[code].name) for code in REGISTRY if code.startswith(incomplete)]


def complete_results(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Profiles that have results in this home, other profiles, or else folders."""
    from polar_pipeline.storage.home import Home

    names = {name for name in Home.from_environment().profiles if name.startswith(incomplete)}
    others = [item for item in complete_profile(context, parameter, incomplete) if item.value not in names]
    found = [*map(CompletionItem, sorted(names)), *others]
    return found or [CompletionItem(incomplete, type="dir")]


def is_yaml(path: str) -> bool:
    """Whether a path is that of a YAML file, as profiles are."""
    return path.endswith((".yaml", ".yml"))


def examples(*lines: str) -> str:
    """The end of a command's help: examples, a line each."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def _set_variable(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Set the option's variable, by which this process and those that it starts find the folder."""
    if value is not None and context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE:
        if not value:
            raise click.BadParameter("name a folder.")
        os.environ[str(parameter.envvar)] = str(Path(value).expanduser().absolute())
    return value


def _folder(name: str, variable: str, text: str) -> Decorator:
    settings: dict[str, Any] = {"envvar": variable, "show_envvar": True, "callback": _set_variable, "help": text}
    return click.option(name, metavar="DIR", type=click.Path(file_okay=False), expose_value=False, **settings)


PROFILE_HELP = "Bundled profile (demo, cpu, laptop, gpu) or path of a YAML file."
PROFILE = click.option(
    "--profile",
    envvar="POLAR_PROFILE",
    default="cpu",
    show_default=True,
    show_envvar=True,
    shell_complete=complete_profile,
    help=PROFILE_HELP,
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and all else on standard error.")
LANGUAGES = click.option(
    "--language",
    "languages",
    multiple=True,
    metavar="CODE",
    shell_complete=complete_language,
    help="A language's code, such as deu; may be repeated.",
)
HOME = _folder("--home", "POLAR_HOME", "Where runs leave everything; default: .polar in the current folder.")
DATA = _folder("--data", "POLAR_DATA_DIR", "The official release; default: what `polar data fetch` got.")


def project_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--profile, --home and --data; the command gets the `Project` that they name."""

    @functools.wraps(command)
    def call(profile: str, **given: Any) -> Any:
        from polar_pipeline.defs.project import Project

        return command(project=Project.load(profile), **given)

    return PROFILE(HOME(DATA(call)))


def file_format(command: Callable[..., Any]) -> Callable[..., Any]:
    """--sep and --encoding; the command gets the `FileFormat` that they make."""

    @functools.wraps(command)
    def call(sep: str | None, encoding: str | None, **given: Any) -> Any:
        from polar_pipeline.settings.files import FileFormat
        from polar_pipeline.settings.yaml_files import validated

        form = validated({"delimiter": sep, "encoding": encoding}, FileFormat, "--sep or --encoding")
        return command(form=form, **given)

    sep = click.option("--sep", metavar="CHARACTER", help="What separates fields, such as ; or tab; default: detected.")
    encoding = click.option("--encoding", metavar="NAME", help="Such as cp1252 or utf-16; default: detected.")
    return sep(encoding(call))


def chosen_languages(command: Callable[..., Any]) -> Callable[..., Any]:
    """--language and those of `project_options`; the command gets their codes, or all of the profile."""

    @functools.wraps(command)
    def call(project: Any, languages: tuple[str, ...], **given: Any) -> Any:
        codes = project.check_languages(languages) if languages else project.codes
        return command(project=project, codes=codes, **given)

    return LANGUAGES(project_options(call))
