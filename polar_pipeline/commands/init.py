"""`polar init`: look at files of posts, say what was understood, and write a task card and a profile for them."""

import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pandas as pd

from polar_pipeline.commands.init_files import Understood, card_yaml, profile_yaml
from polar_pipeline.commands.init_labels import a_few, understand_labels
from polar_pipeline.corpus.columns import find_column, has_columns, wrong_delimiter
from polar_pipeline.corpus.guess import Guess, guess_columns, named_columns
from polar_pipeline.corpus.identification import language_shares
from polar_pipeline.corpus.sources import Source, find_sources, split_of
from polar_pipeline.corpus.text import duplicate_groups, is_blank
from polar_pipeline.errors import InputError
from polar_pipeline.settings.files import FileFormat
from polar_pipeline.settings.profile import bundled_profiles, name_of_file
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.tables.table_file import AUTO, suffix_of
from polar_pipeline.task.languages import LANGUAGES, language, language_code

_CLEAR = 0.5  # share of posts surely in one language from which it is taken for that of the file
_FEW = 100  # posts of the rarest label below which figures say little


@dataclass(frozen=True)
class Given:
    """What the command line says: the columns, the language, the word of the positive label, how files are written."""

    text: str | None = None
    labels: tuple[str, ...] = ()
    id: str | None = None
    language: str | None = None
    positive: str | None = None
    form: FileFormat = AUTO


def init(data: Path, folder: Path, given: Given, name: str | None) -> None:
    """Write NAME.card.yaml and NAME.yaml to `folder` for the posts in `data`, and say what was understood.

    Where `data` is `-`, the posts are read from standard input, and kept beside the two. Raises InputError, before
    anything is written, for what cannot be told or is there already.
    """
    stdin = str(data) == "-"
    profile = folder / f"{name_of_file(Path(name or ('posts' if stdin else data.stem) or 'posts'))}.yaml"
    card = profile.with_suffix(".card.yaml")
    if profile.stem in bundled_profiles():
        raise InputError(f"{profile.stem} is the name of a bundled profile: give another with --name.")
    if there := [path for path in (profile, card) if path.exists()]:
        raise InputError(f"{there[0]} exists already: remove it, or give another name with --name.")
    kept = _kept_input(profile) if stdin else None
    try:
        found = understand(kept or data, given)
    except InputError:
        if kept:
            kept.unlink()
        raise
    _say(found)
    write_atomic(card, card_yaml(found, profile.stem).encode())
    write_atomic(profile, profile_yaml(found, card, folder).encode())
    click.echo(f"\nwritten: {card} (what the files mean) and {profile} (how it is solved); look at both, then")
    click.echo(f"  polar run --all --profile {profile}")


def _kept_input(profile: Path) -> Path:
    """Standard input as a file beside the profile, whose suffix says what it holds. Raises InputError if it exists."""
    content = sys.stdin.buffer.read()
    path = profile.with_suffix(suffix_of(content))
    if path.exists():
        raise InputError(f"{path} exists already: remove it, or give another name with --name.")
    write_atomic(path, content)
    return path


def understand(data: Path, given: Given, spoken: str | None = None) -> Understood:
    """What the posts in `data` are; `spoken` is the column of their languages, if it is known.

    Raises InputError that says what to give where it cannot be told.
    """
    sources = find_sources(data, tuple(LANGUAGES))
    tables = [source.read(given.form.model_copy(update={"skip_bad": True})) for source in sources]
    notes = [f"{table.path}: {note}" for table in tables for note in table.notes]
    for table in tables:
        if given.form.delimiter and (other := wrong_delimiter(table.header)):
            raise InputError(f"{table.path} is separated by {other} and --sep says otherwise: correct it.")
    frame = pd.concat([table.frame for table in tables], ignore_index=True).fillna("")
    known = {"text": given.text, "label": next(iter(given.labels), None), "id": given.id, "language": spoken}
    for role, column in [*known.items(), *(("label", name) for name in given.labels[1:])]:
        if column is not None and column not in frame:
            has = has_columns([str(name) for name in frame.columns])
            raise InputError(f"{data} has no column `{column}` ({has}): correct --{role}.")
    columns = guess_columns(frame, known)
    if columns.text is None:
        raise InputError(f"no column of {data} looks like the posts: name it with --text.")
    if given.language is not None:
        columns = columns._replace(language=None)
    labels = understand_labels(data, frame, columns, given.labels, given.positive)
    columns = columns._replace(label=labels.column)
    codes, doubts = _codes(frame, columns, sources, given.language)
    notes += [*labels.notes, *_odd(frame, columns, labels.cells, labels.counts), *_unused(frame, columns), *doubts]
    if len(tables) > 1:
        notes.append(f"files: {', '.join(str(table.path) for table in tables)}")
    return Understood(data, columns, len(frame), codes, labels, notes)


def _codes(
    frame: pd.DataFrame, columns: Guess, sources: list[Source], given: str | None
) -> tuple[list[str], list[str]]:
    """The languages of the posts, and what is doubtful about them. Raises InputError if they cannot be told."""
    if columns.language is not None:
        cells = frame[columns.language]
        return sorted({code for cell in cells.unique() if (code := language_code(cell))}), []
    named = sorted({source.language for source in sources if source.language})
    shares = language_shares(frame[str(columns.text)].tolist(), seed=0)
    seen = ", ".join(f"{share:.0%} {language(code).name}" for code, share in list(shares.items())[:4] if share >= 0.01)
    code = language_code(given) if given else next(iter(shares), None)
    if given and code is None:
        raise InputError(f"--language {given} is no language: write a code such as deu.")
    if code is None or (not given and not named and shares[code] < _CLEAR):
        raise InputError(
            f"the language of the posts cannot be told ({seen or 'nothing is sure'}): name it with --language."
        )
    codes = named if named and not given else [code]
    others = {other: share for other, share in shares.items() if other not in codes and share >= 0.1}
    doubts = [] if given or named else [f"the language was told from the posts: surely {seen}"]
    if others:
        names = ", ".join(f"{share:.0%} in {language(other).name}" for other, share in others.items())
        doubts.append(f"posts in other languages: {names}; a column of languages would keep them apart")
    return codes, doubts


def _odd(frame: pd.DataFrame, columns: Guess, labels: "pd.Series[str]", counts: dict[str, int]) -> list[str]:
    """What is worth a look before training."""
    text = frame[str(columns.text)]
    blank, unlabelled = text.map(is_blank).astype(bool), labels == ""
    rows = pd.DataFrame({"text": text[~blank], "label": labels[~blank]}).reset_index(drop=True)
    rows["group"] = duplicate_groups(rows)
    groups = rows[rows["label"] != ""].groupby("group")["label"].agg(["size", "nunique"])
    copies, conflicts = int((groups["size"] - 1).sum()), int((groups["nunique"] > 1).sum())
    facts = {
        f"{int(blank.sum())} rows have no text and are left out": blank.any(),
        f"{int(unlabelled.sum())} rows have no label: they are predicted, not trained on": unlabelled.any(),
        f"{copies} posts repeat an earlier one but for spaces, case or addresses": copies,
        f"{conflicts} groups of repeated posts have different labels": conflicts,
        f"few posts: {min(counts.values())} of the rarest label; figures will be unsure": min(counts.values()) < _FEW,
    }
    return [text for text, true in facts.items() if true]


def _unused(frame: pd.DataFrame, columns: Guess) -> list[str]:
    """Columns whose names say what they hold, and whose cells cannot be used for it."""
    found = []
    own = find_column(list(frame.columns), "id")
    if columns.id is None and own is not None:
        doubled = int(frame[own].duplicated().sum())
        found.append(f"column `{own}` repeats {doubled} ids, so it is not used: ids are made from the texts")
    for role, meaning in (("language", language_code), ("split", split_of)):
        taken = {name for name in columns if name is not None}
        unused = [name for name in named_columns(role, list(frame.columns)) if name not in taken]
        if getattr(columns, role) is None and unused:
            cells = [str(cell) for cell in frame[unused[0]].unique()]
            wrong = a_few([cell for cell in cells if not meaning(cell)])
            found.append(f"column `{unused[0]}` is not used, because of {wrong or 'its cells'}: all rows are taken")
    return found


def _say(found: Understood) -> None:
    columns = found.columns
    click.echo(f"{found.data}: {found.rows} rows")
    roles = ", ".join(f"{role} `{name}`" for role, name in columns._asdict().items() if name is not None)
    click.echo(f"columns: {roles}")
    click.echo(f"languages: {', '.join(f'{language(code).name} ({code})' for code in found.codes)}")
    means = {word: f" ({'positive' if code else 'negative'})" for word, code in found.labels.words.items()}
    labels = ", ".join(f"{word!r} {count}{means.get(word, '')}" for word, count in found.labels.counts.items())
    what = {"binary": "labels", "multiclass": "classes", "multilabel": "labels, of which a post may have several"}
    click.echo(f"{what[found.labels.kind]}: {labels}")
    for note in found.notes:
        click.echo(f"note: {note}")
