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
from polar_pipeline.commands.new_posts import Post, Reading, check_posts, open_posts, read_new_posts
from polar_pipeline.corpus.audit import doubt_in_words, other_languages
from polar_pipeline.corpus.progress import Advance, progress, to_stderr
from polar_pipeline.decision.predictions import answers, csv_bytes, note_on_new_posts, predict_new_targets
from polar_pipeline.decision.record import Decision, Decisions
from polar_pipeline.decision.targets import WHOLE
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.storage.files import write_atomic_with
from polar_pipeline.task.card import MAIN_HEAD, TaskCard
from polar_pipeline.task.languages import language

BATCH = 4096  # posts that are read together
SECONDS_BETWEEN_LINES = 5.0

_FEWEST = 20  # posts from which shares of languages say something
_AS_IT_IS = Reading()
Scorer = Callable[[list[str]], dict[str, dict[str, Floats]]]


def predict_file(
    project: Project,
    codes: list[str],
    path: Path,
    output: Path | None,
    skip_bad: bool = False,
    bad: Path | None = None,
    reading: Reading = _AS_IT_IS,
) -> int:
    """Write id, label, probability, margin and review of the posts in a file, to `output` or else stdout.

    The posts are in the languages `codes`; of several, a column says which. The file's other columns follow. With
    `skip_bad`, bad rows are left out and listed on stderr, and all of them in the CSV `bad` if given. Returns the exit
    code. Raises InputError for what keeps the posts from being scored, such as a decision that is not current; then
    nothing is written.
    """
    if output is not None and output.is_dir():
        raise InputError(f"output {output} is a folder: name a file.")
    # of several languages, only those of the posts need to be there
    judges = {code: _judge(project, code) for code in codes if len(codes) == 1}
    file = open_posts(path, project.card, reading, tuple(codes))
    with file.table:
        total = check_posts(file, skip_bad, bad)
        models = ModelCache()
        judges |= {code: _judge(project, code, models) for code in sorted(total) if code not in judges}
        review = 0

        def content(advance: Advance) -> Iterator[bytes]:
            nonlocal review
            posts = (post for post in read_new_posts(file) if isinstance(post, Post))
            header = True
            while batch := list(islice(posts, BATCH)):
                if header:
                    _doubt_languages(batch, path)
                table = _judged(judges, batch, project.card, file.others)
                review += int(table["review"].sum())
                yield csv_bytes(table, header=header)
                header = False
                advance(len(batch), "")

        # a bar between the rows that scroll by would be unreadable
        say = to_stderr if output is None and sys.stdout.isatty() else None
        with progress("posts", total.total(), every=SECONDS_BETWEEN_LINES, say=say) as advance:
            whole = _write(output, content(advance))
    if not whole:
        return 1
    found = "; ".join(_worth(judges[code].decisions, alone=len(judges) == 1) for code in judges)
    click.echo(f"{total.total()} posts, {review} for review; {found}.", err=True)
    return 0


class Judge(NamedTuple):
    """What labels new posts of a language."""

    decisions: Decisions
    score: Scorer


def _judge(project: Project, code: str, models: ModelCache | None = None) -> Judge:
    """Raises InputError for a decision that is not current, or one made with other models than the home has."""
    lineage = Lineage(project)
    lineage.require_current("thresholds", code)
    decisions: Decisions = lineage.read("thresholds", code)
    # it is the same for all targets that have it
    if note := next(filter(None, map(note_on_new_posts, decisions.targets)), ""):
        click.echo(note, err=True)
    return Judge(decisions, new_scorer(project, decisions, models))


def _worth(decisions: Decisions, alone: bool) -> str:
    estimate = decisions.out_of_fold
    what = "this decision" if alone else f"that of {decisions.language}"
    return (
        f"out of fold {what} scores {decisions.metric} {estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
    )


def _doubt_languages(batch: list[Post], path: Path) -> None:
    """Say on stderr if many of the first posts seem to be in another language than that of their models."""
    for code in sorted({post.language for post in batch}):
        texts = [post.text for post in batch if post.language == code]
        if len(texts) < _FEWEST:
            continue
        others = other_languages(texts, language(code), seed=0)
        if doubt := doubt_in_words(others, code):
            click.echo(f"{path}: {doubt}", err=True)


def _judged(judges: dict[str, Judge], batch: list[Post], card: TaskCard, others: list[str]) -> pd.DataFrame:
    """The rows of the output for these posts, in their order."""
    parts = []
    for code in sorted({post.language for post in batch}):
        places = [place for place, post in enumerate(batch) if post.language == code]
        decisions, score = judges[code]
        found = predict_new_targets(decisions, score([batch[place].text for place in places]), len(places))
        parts.append(answers(found, card).set_axis(pd.Index(places)))
    judged = pd.concat(parts).sort_index()
    judged.insert(0, "id", pd.Series([post.id for post in batch], dtype="str"))
    for place, name in enumerate(others):
        # a label that the file has already is not the one that was decided
        while name in judged:
            name += "_given"
        judged[name] = [post.others[place] for post in batch]
    return judged


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


def new_scorer(project: Project, decisions: Decisions, models: ModelCache | None = None) -> Scorer:
    """A function that gives the logits (texts,) of every member, by target and name; models stay loaded between calls.

    Those of several languages may share `models`. A member without weight is not asked, so that an imported one need
    not be able to answer.
    """
    settings = {entry.name: entry for entry in project.profile.backbones}
    models, card = ModelCache() if models is None else models, project.card
    decided = [*decisions.targets, *([decisions.whole] if decisions.whole else [])]
    asked = [(one, member) for one in decided for member in one.members if member.weight != 0]
    names = dict.fromkeys(member.backbone for _, member in asked)
    refs = {name: _adapter(project, decisions.first, name) for name in names}
    backbones = {name: make_backbone(settings[name], project.profile, card, project.home, models) for name in names}
    passes = dict.fromkeys((member.backbone, member.seeds) for _, member in asked)  # one may serve several heads

    def score(texts: list[str]) -> dict[str, dict[str, Floats]]:
        heads = {}
        for name, seeds in passes:
            backbone, ref = backbones[name], refs[name]
            size = backbone.texts_at_once
            pieces = [texts[start : start + size] for start in range(0, len(texts), size)]
            parts = [backbone.logits(decisions.language, ref, piece, seeds) for piece in pieces]
            heads[name, seeds] = {head: np.concatenate([part[head] for part in parts]) for head in parts[0]}
        found: dict[str, dict[str, Floats]] = {}
        found |= {one.target: {member.name: np.zeros(len(texts)) for member in one.members} for one in decided}
        for one, member in asked:
            # the main head of a label is the one of its name
            own = card.labels and member.head == MAIN_HEAD and one.target != WHOLE
            head = one.target if own else member.head
            found[one.target][member.name] = heads[member.backbone, member.seeds][head]
        return found

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
