"""`polar init` as a command: its options, before anything slow is imported."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from polar_pipeline.commands.options import examples, file_format

if TYPE_CHECKING:
    from polar_pipeline.settings.files import FileFormat


@click.command(
    epilog=examples(
        "polar init comments.csv",
        "polar init tweets.tsv --text tweet --label class --positive hateful",
        "polar init emotions.csv --label joy --label anger --label fear",
    )
)
@click.argument("posts", type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--to", "folder", type=click.Path(path_type=Path, file_okay=False), default=".", help="Where they are put."
)
@click.option("--name", help="That of the profile; default: that of the file.")
@click.option("--text", metavar="COLUMN", help="The column with the posts; default: guessed.")
@click.option(
    "--label",
    "labels",
    metavar="COLUMN",
    multiple=True,
    help="The column with their labels; several for several labels.",
)
@click.option("--id", "id_", metavar="COLUMN", help="The column that names the posts; default: guessed, if any.")
@click.option("--language", metavar="CODE", help="The posts' language; default: told from them.")
@click.option("--positive", metavar="WORD", help="The label that is to be found, all others being negative.")
@file_format
def init(
    posts: Path,
    folder: Path,
    name: str | None,
    text: str | None,
    labels: tuple[str, ...],
    id_: str | None,
    language: str | None,
    positive: str | None,
    form: "FileFormat",
) -> None:
    """Look at labelled posts, say what they are, and write a task card and a profile for them.

    POSTS is a file (CSV, TSV, JSON lines, Parquet), a folder of such files or of a Hugging Face dataset, or - for
    standard input.
    """
    from polar_pipeline.commands.init import Given
    from polar_pipeline.commands.init import init as look_and_write

    look_and_write(posts, folder, Given(text, labels, id_, language, positive, form), name)
