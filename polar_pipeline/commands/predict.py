"""`polar predict`: a language's decision applied to a file of new posts, in batches of bounded memory.

The file is read twice: first all of it is checked, so that nothing is written for a file with a bad row; then scored.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.backbones.factory import make_backbone
from polar_pipeline.backbones.lora.loading import ModelCache
from polar_pipeline.corpus.progress import Advance, progress, to_stderr
from polar_pipeline.corpus.rows import BadRow, CsvFile, no_rows, refusal
from polar_pipeline.corpus.text import is_blank
from polar_pipeline.decision.predictions import csv_bytes, note_on_new_posts, predict_new
from polar_pipeline.decision.record import Decision
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.storage.files import write_atomic, write_atomic_with

BATCH = 4096  # posts that are read together
SHOWN = 20  # bad rows on stderr; the file of --bad has all
SECONDS_BETWEEN_LINES = 5.0

Scorer = Callable[[list[str]], dict[str, Floats]]


class Post(NamedTuple):
    """A post that can be scored."""

    id: str
    text: str


def predict_file(
    project: Project, code: str, path: Path, output: Path | None, skip_bad: bool = False, bad: Path | None = None
) -> int:
    """Write id, label, probability, margin and review of the posts in the CSV at `path`, to `output` or else stdout.

    With `skip_bad`, bad rows are left out and listed on stderr, and all of them in the CSV `bad` if given. Returns the
    exit code. Raises InputError for what keeps the posts from being scored, such as a decision that is not current;
    then nothing is written.
    """
    lineage = Lineage(project)
    lineage.require_current("thresholds", code)
    decision: Decision = lineage.read("thresholds", code)
    score = _scorer(project, decision)
    if note := note_on_new_posts(decision):
        click.echo(note, err=True)
    if output is not None and output.is_dir():
        raise InputError(f"output {output} is a folder: name a file.")
    with _open_posts(path) as file:
        total = _check(file, skip_bad, bad)
        review = 0

        def content(advance: Advance) -> Iterator[bytes]:
            nonlocal review
            posts = (post for post in read_new_posts(file) if isinstance(post, Post))
            header = True
            while batch := list(islice(posts, BATCH)):
                table = _judged(decision, score, batch, project.card.label.column)
                review += int(table["review"].sum())
                yield csv_bytes(table, header=header)
                header = False
                advance(len(batch), "")

        # a bar between the rows that scroll by would be unreadable
        say = to_stderr if output is None and sys.stdout.isatty() else None
        with progress("posts", total, every=SECONDS_BETWEEN_LINES, say=say) as advance:
            whole = _write(output, content(advance))
    if not whole:
        return 1
    estimate = decision.out_of_fold
    click.echo(
        f"{total} posts, {review} for review; "
        f"out of fold this decision scores macro-F1 {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}].",
        err=True,
    )
    return 0


def read_new_posts(file: CsvFile) -> Iterator[Post | BadRow]:
    """Every row of a file with the columns id and text: the post, or what is wrong with the row.

    Ids are compared by their 64-bit hashes, which needs less memory than the ids: two of 10^6 different ids are taken
    for one with a probability of 3e-8.
    """
    ids, texts = (file.header.index(name) for name in ("id", "text"))
    seen: set[int] = set()
    for row in file.rows():
        if isinstance(row, BadRow):
            yield row
            continue
        post = Post(row.fields[ids], row.fields[texts])
        if is_blank(post.id):
            yield BadRow(row.number, row.line, "id", "is empty", "correct it")
        elif hash(post.id) in seen:
            yield BadRow(row.number, row.line, "id", "is doubled, an earlier row has the same", "correct it")
        elif is_blank(post.text):
            yield BadRow(row.number, row.line, "text", "is empty", "correct it")
        else:
            seen.add(hash(post.id))
            yield post


def _open_posts(path: Path) -> CsvFile:
    if not path.exists():
        raise InputError(f"{path} does not exist: give a CSV file with the columns id and text.")
    file = CsvFile(path)
    if missing := [name for name in ("id", "text") if name not in file.header]:
        raise InputError(f"{path} lacks the column {' and '.join(missing)}: it should have id and text.")
    return file


def _check(file: CsvFile, skip_bad: bool, bad: Path | None) -> int:
    """The number of posts to score. Raises InputError for the first bad row unless they are skipped."""
    total, found = 0, list[BadRow]()
    for post in read_new_posts(file):
        if isinstance(post, Post):
            total += 1
        elif skip_bad:
            found.append(post)
        else:
            raise InputError(f"{str(refusal(file, post)).removesuffix('.')}, or leave out bad rows with --skip-bad.")
    if bad is not None:
        rows = [(row.number, row.line, row.column, row.problem) for row in found]
        write_atomic(bad, csv_bytes(pd.DataFrame(rows, columns=["row", "line", "column", "problem"])))
    if not total and not found:
        raise no_rows(file)
    _list_bad(found)
    if not total:
        raise InputError(f"{file.path}: all {len(found)} rows are bad, none is left to score: correct them.")
    return total


def _list_bad(found: list[BadRow]) -> None:
    for row in found[:SHOWN]:
        click.echo(f"left out: {row}", err=True)
    if len(found) > SHOWN:
        click.echo(f"left out: {len(found) - SHOWN} more bad rows", err=True)


def _judged(decision: Decision, score: Scorer, batch: list[Post], label: str) -> pd.DataFrame:
    """The rows of the output for these posts."""
    judged = predict_new(decision, score([post.text for post in batch])).rename(columns={"prediction": label})
    judged.insert(0, "id", pd.Series([post.id for post in batch], dtype="str"))
    return judged[["id", label, "probability", "margin", "review"]]


def _write(output: Path | None, content: Iterable[bytes]) -> bool:
    """Write `content` as it comes; a file is at `output` once it is complete. Returns False if stdout was closed."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.writelines(content)

    if output is not None and output.exists() and (not output.is_file() or Path("/dev") in output.parents):
        write(output)  # a device or a pipe, which nothing may be renamed to
    elif output is not None:
        write_atomic_with(output, write)
    else:
        try:
            for piece in content:
                click.echo(piece, nl=False)
        except BrokenPipeError:  # as by `| head`
            with suppress(OSError):
                sys.stdout.close()
            return False
    return True


def _scorer(project: Project, decision: Decision) -> Scorer:
    """A function that gives the logits (texts,) of every member by name; models stay loaded between its calls.

    A member without weight is not asked, so that an imported one need not be able to answer.
    """
    settings = {entry.name: entry for entry in project.profile.backbones}
    models = ModelCache()
    asked = [member for member in decision.members if member.weight != 0]
    names = dict.fromkeys(member.backbone for member in asked)
    refs = {name: _adapter(project, decision, name) for name in names}
    backbones = {
        name: make_backbone(settings[name], project.profile, project.card, project.home, models) for name in names
    }
    passes = dict.fromkeys((member.backbone, member.seeds) for member in asked)  # one may serve several heads

    def score(texts: list[str]) -> dict[str, Floats]:
        found = {}
        for name, seeds in passes:
            backbone, ref = backbones[name], refs[name]
            size = backbone.texts_at_once
            pieces = [texts[start : start + size] for start in range(0, len(texts), size)]
            parts = [backbone.logits(decision.language, ref, piece, seeds) for piece in pieces]
            found[name, seeds] = {head: np.concatenate([part[head] for part in parts]) for head in parts[0]}
        silent: dict[str, Floats] = {member.name: np.zeros(len(texts)) for member in decision.members}
        return silent | {member.name: found[member.backbone, member.seeds][member.head] for member in asked}

    return score


def _adapter(project: Project, decision: Decision, name: str) -> AdapterRef:
    """The adapter that the decision was made with. Raises InputError when the home has another one or none."""
    ref: AdapterRef = Lineage(project).read(f"{name}_adapter", decision.language)
    if ref.sha256 != decision.adapters[name]:
        raise InputError(
            f"the adapter {name} of {decision.language} is not the one that was decided with: "
            f"materialize thresholds for {decision.language} again."
        )
    return ref
