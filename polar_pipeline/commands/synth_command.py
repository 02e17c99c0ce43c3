"""`polar synth` as a group of commands: their options, before anything slow is imported."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from polar_pipeline.commands.options import chosen_languages, examples

if TYPE_CHECKING:
    from polar_pipeline.defs.project import Project


@click.group()
def synth() -> None:
    """Synthetic posts: what they would cost, whether they help, and a file of them."""


@synth.command(name="plan", epilog=examples("polar synth plan --profile my.yaml", "polar synth plan --language deu"))
@chosen_languages
def synth_plan(project: "Project", codes: list[str]) -> int:
    """Print requests, tokens and dollars; nothing is sent. All languages of the profile unless some are named."""
    from polar_pipeline.commands.synth import print_plan

    return print_plan(project, codes)


@synth.command(
    name="evaluate",
    epilog=examples(
        "polar synth evaluate --profile my.yaml --language deu",
        "polar synth evaluate --profile my.yaml --language deu --backbone gemma",
    ),
)
@click.option(
    "--backbone",
    metavar="NAME",
    help="A backbone of the profile to train; default: the linear one. A fine-tuned one takes up to five trainings.",
)
@chosen_languages
def synth_evaluate(project: "Project", codes: list[str], backbone: str | None) -> int:
    """Train a backbone with several shares of synthetic posts, and say whether they help.

    Then how far the planned labels, the judge (curation.judge) and the backbone without synthetic posts agree. Posts
    that are not there yet are made first, which costs what `polar synth plan` says.
    """
    from polar_pipeline.commands.synth_evaluate import print_evaluation

    return print_evaluation(project, codes, backbone)


@synth.command(name="retry", epilog=examples("polar synth retry --profile my.yaml --language deu"))
@click.option("--read-again", is_flag=True, help="Only read kept answers again, as this version can; pays nothing.")
@click.option(
    "--open-batches",
    is_flag=True,
    help="Also give up batches whose end was not seen: they count at their worst case, and are asked again.",
)
@chosen_languages
def synth_retry(project: "Project", codes: list[str], read_again: bool, open_batches: bool) -> int:
    """Let the next run ask again for what was refused, unreadable or cut off.

    Sends nothing. What was spent stays spent.
    """
    from polar_pipeline.commands.synth import retry

    return retry(project, codes, read_again, open_batches)


@synth.command(
    name="export",
    epilog=examples(
        "polar synth export --profile my.yaml",
        "polar synth export --profile my.yaml --language deu --to german.jsonl",
    ),
)
@chosen_languages
@click.option(
    "--to",
    "target",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A name that ends in .csv or .jsonl; default: synthetic.csv among the results of the profile.",
)
def synth_export(project: "Project", codes: list[str], target: Path | None) -> int:
    """Write the synthetic posts of finished languages, kept and flagged, for people and tools to look through.

    `synthesis.source: file` reads what is written. All languages of the profile unless some are named.
    """
    from polar_pipeline.commands.synth_export import export_posts

    return export_posts(project, codes, target)
