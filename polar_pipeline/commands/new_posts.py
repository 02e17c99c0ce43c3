"""Files of new posts: their columns found, every row checked before anything is scored."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pandas as pd

from polar_pipeline.corpus.columns import find_column, has_columns, wrong_delimiter
from polar_pipeline.corpus.schemas import shown
from polar_pipeline.corpus.text import is_blank
from polar_pipeline.decision.predictions import csv_bytes
from polar_pipeline.errors import InputError
from polar_pipeline.settings.files import FileFormat
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.tables.rows import BadRow, TableFile, no_rows, refusal
from polar_pipeline.tables.table_file import AUTO, open_table
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.languages import language_code

SHOWN = 20  # bad rows on stderr; the file of --bad has all


class Post(NamedTuple):
    """A post that can be scored, and what its row holds beside it."""

    id: str
    text: str
    language: str
    others: tuple[str, ...] = ()


class PostFile(NamedTuple):
    """A file of new posts; None for `id` where it has no such column, and rows are known by their numbers."""

    table: TableFile
    text: str
    id: str | None
    language: str | None  # the column of the languages; None: all posts are in the only one of `languages`
    languages: tuple[str, ...]  # those that the posts may be in
    others: list[str]  # the columns that are passed through


class Reading(NamedTuple):
    """How a file of new posts is read: the names of its columns, and how it is written."""

    text: str | None = None  # the task card's, unless given
    id: str | None = None
    language: str | None = None
    form: FileFormat = AUTO


def open_posts(path: Path, card: TaskCard, reading: Reading, languages: tuple[str, ...]) -> PostFile:
    """The file, once its columns are found; what was guessed is said on stderr. Raises InputError if they are not.

    Posts of several `languages` need a column that says which.
    """
    table = open_table(path, reading.form)
    for note in table.notes:
        click.echo(f"{path}: {note}", err=True)
    wanted = reading.text or card.columns.text
    text, own = find_column(table.header, wanted), find_column(table.header, reading.id or card.columns.id or "id")
    if text is None and (other := wrong_delimiter(table.header)):
        raise InputError(f"{path} is separated by {other} and --sep says otherwise: correct it.")
    missing = [f"`{wanted}`"] * (text is None) + [f"`{reading.id}`"] * (own is None and reading.id is not None)
    if missing or text is None:
        raise InputError(
            f"{path} lacks the column {' and '.join(missing)}: name the right ones with --text and --id; "
            f"{has_columns(table.header)}."
        )
    spoken = None if len(languages) == 1 else _language_column(table, card, reading, languages)
    if own is None:
        click.echo(f"{path} has no column `id`: posts are known by the numbers of their rows", err=True)
    return PostFile(table, text, own, spoken, languages, [name for name in table.header if name not in (text, own)])


def _language_column(table: TableFile, card: TaskCard, reading: Reading, languages: tuple[str, ...]) -> str:
    wanted = reading.language or card.columns.language or "language"
    if (found := find_column(table.header, wanted)) is None:
        raise InputError(
            f"{table.path} has no column `{wanted}`: name the posts' language with --language "
            f"({', '.join(sorted(languages))}), or the column that says it with --language-column; "
            f"{has_columns(table.header)}."
        )
    return found


def read_new_posts(file: PostFile) -> Iterator[Post | BadRow]:
    """Every row of a file of posts: the post, or what is wrong with the row.

    Ids are compared by their 64-bit hashes, which needs less memory than the ids: two of 10^6 different ids are taken
    for one with a probability of 3e-8.
    """
    header = file.table.header
    text, others = header.index(file.text), [header.index(name) for name in file.others]
    own = None if file.id is None else header.index(file.id)
    spoken = None if file.language is None else header.index(file.language)
    seen: set[int] = set()
    for row in file.table.rows():
        if isinstance(row, BadRow):
            yield row
            continue
        name = str(row.number) if own is None else row.fields[own]
        said = None if spoken is None else row.fields[spoken]
        code = file.languages[0] if said is None else language_code(said)
        post = Post(name, row.fields[text], code or "", tuple(row.fields[place] for place in others))
        if code not in file.languages:
            problem = f"is {shown(said)}, which is none of the languages {', '.join(sorted(file.languages))}"
            yield BadRow(row.number, row.line, str(file.language), problem, "correct it")
        elif is_blank(post.id):
            yield BadRow(row.number, row.line, str(file.id), "is empty", "correct it")
        elif hash(post.id) in seen:
            yield BadRow(row.number, row.line, str(file.id), "is doubled, an earlier row has the same", "correct it")
        elif is_blank(post.text):
            yield BadRow(row.number, row.line, file.text, "is empty", "correct it")
        else:
            seen.add(hash(post.id))
            yield post


def check_posts(file: PostFile, skip_bad: bool, bad: Path | None) -> Counter[str]:
    """The number of posts to score, by language. Raises InputError for the first bad row unless they are skipped."""
    total, found = Counter[str](), list[BadRow]()
    for post in read_new_posts(file):
        if isinstance(post, Post):
            total[post.language] += 1
        elif skip_bad:
            found.append(post)
        else:
            raise InputError(
                f"{str(refusal(file.table, post)).removesuffix('.')}, or leave out bad rows with --skip-bad."
            )
    if bad is not None:
        rows = [(row.number, row.line, row.column, row.problem) for row in found]
        write_atomic(bad, csv_bytes(pd.DataFrame(rows, columns=["row", "line", "column", "problem"])))
    if not total and not found:
        raise no_rows(file.table)
    _list_bad(found)
    if not total:
        raise InputError(f"{file.table.path}: all {len(found)} rows are bad, none is left to score: correct them.")
    return total


def _list_bad(found: list[BadRow]) -> None:
    for row in found[:SHOWN]:
        click.echo(f"left out: {row}", err=True)
    if len(found) > SHOWN:
        click.echo(f"left out: {len(found) - SHOWN} more bad rows", err=True)
