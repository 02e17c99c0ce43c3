"""`polar init`: look at files of posts, say what was understood, and write a task card and a profile for them."""

from dataclasses import dataclass
from pathlib import Path

import click
import pandas as pd

from polar_pipeline.commands.init_files import Understood, card_yaml, profile_yaml
from polar_pipeline.corpus.columns import find_column, has_columns
from polar_pipeline.corpus.guess import Guess, guess_columns, guess_several, guess_words, named_columns, says_positive
from polar_pipeline.corpus.identification import language_shares
from polar_pipeline.corpus.sources import Source, find_sources, split_of
from polar_pipeline.corpus.text import duplicate_groups, is_blank
from polar_pipeline.errors import InputError
from polar_pipeline.settings.files import FileFormat
from polar_pipeline.settings.profile import bundled_profiles, name_of_file
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.tables.table_file import AUTO
from polar_pipeline.task.languages import LANGUAGES, language, language_code

_LONGEST_NAME = 5  # words
_MOST_CLASSES = 50
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

    Raises InputError, before anything is written, for what cannot be told or is there already.
    """
    profile = folder / f"{name_of_file(Path(name or data.stem or 'posts'))}.yaml"
    card = profile.with_suffix(".card.yaml")
    if profile.stem in bundled_profiles():
        raise InputError(f"{profile.stem} is the name of a bundled profile: give another with --name.")
    if there := [path for path in (profile, card) if path.exists()]:
        raise InputError(f"{there[0]} exists already: remove it, or give another name with --name.")
    found = understand(data, given)
    _say(found)
    write_atomic(card, card_yaml(found, profile.stem).encode())
    write_atomic(profile, profile_yaml(found, card, folder).encode())
    click.echo(f"\nwritten: {card} (what the files mean) and {profile} (how it is solved); look at both, then")
    click.echo(f"  polar run --all --profile {profile}")


def understand(data: Path, given: Given, spoken: str | None = None) -> Understood:
    """What the posts in `data` are; `spoken` is the column of their languages, if it is known.

    Raises InputError that says what to give where it cannot be told.
    """
    sources = find_sources(data, tuple(LANGUAGES))
    tables = [source.read(given.form.model_copy(update={"skip_bad": True})) for source in sources]
    notes = [f"{table.path}: {note}" for table in tables for note in table.notes]
    frame = pd.concat([table.frame for table in tables], ignore_index=True).fillna("")
    several = given.labels if len(given.labels) > 1 else ()
    known = {"text": given.text, "label": next(iter(given.labels), None), "id": given.id, "language": spoken}
    for role, column in [*known.items(), *(("label", name) for name in several)]:
        if column is not None and column not in frame:
            has = has_columns([str(name) for name in frame.columns])
            raise InputError(f"{data} has no column `{column}` ({has}): correct --{role}.")
    columns = guess_columns(frame, known)
    if columns.text is None:
        raise InputError(f"no column of {data} looks like the posts: name it with --text.")
    several = several or (() if given.labels else tuple(guess_several(frame, columns)))
    if several:
        kind, words = "multilabel", dict[str, int]()
        counts = {name: int(frame[name].map(_is_one).sum()) for name in several}
        labels = frame[list(several)].agg("".join, axis=1)
        notes += [
            f"{name} has no positive post: every post will be answered with 0" for name in several if not counts[name]
        ]
    else:
        labels = _one_column(data, frame, columns)
        kind, words, counts = _classes(data, str(columns.label), labels, given.positive)
    codes, doubts = _codes(frame, columns, sources, given.language)
    notes += [*_odd(frame, columns, labels, counts), *_unused(frame, columns), *doubts]
    if kind == "binary" and given.positive is None and not says_positive(words):
        notes.append(f"that {_positive(words)!r} is the positive label was guessed; --positive names another")
    if len(tables) > 1:
        notes.append(f"files: {', '.join(str(table.path) for table in tables)}")
    shown = columns._replace(label=None) if several else columns
    return Understood(data, shown, len(frame), codes, words, counts, notes, kind)


def _one_column(data: Path, frame: pd.DataFrame, columns: Guess) -> "pd.Series[str]":
    """The labels of the column that has them. Raises InputError if there is none."""
    if columns.label is None:
        alone = [name for name in named_columns("label", list(frame.columns)) if frame[name].nunique() == 1]
        told = (
            f"column `{alone[0]}` of {data} has one value only" if alone else f"no column of {data} looks like a label"
        )
        raise InputError(f"{told}: a label has a few different ones; name its column with --label.")
    labels = frame[columns.label].str.strip()
    if columns.label.strip() in set(labels) or len(str(columns.text).split()) > _LONGEST_NAME:
        raise InputError(
            f"{data} seems to have no header, because `{str(columns.text)[:40]}` and `{columns.label}` are no names: "
            f"add a first line such as text,label."
        )
    return labels


def _classes(
    data: Path, column: str, labels: "pd.Series[str]", positive: str | None
) -> tuple[str, dict[str, int], dict[str, int]]:
    """The kind of the task, what each word means in a binary one, and the posts of each word or class."""
    values = sorted(set(labels) - {""})
    different = sorted({value.casefold() for value in values})
    if positive is None and 2 < len(different) <= _MOST_CLASSES:
        counts = {name: int((labels.str.casefold() == name).sum()) for name in different}
        spelt = {name: next(value for value in values if value.casefold() == name) for name in different}
        return "multiclass", {}, {spelt[name]: count for name, count in counts.items()}
    words = _words(data, column, labels, positive)
    return "binary", words, {word: int((labels == word).sum()) for word in words}


def _is_one(cell: str) -> bool:
    return cell.strip().casefold() in ("1", "1.0", "true", "yes")


def _words(data: Path, column: str, labels: "pd.Series[str]", positive: str | None) -> dict[str, int]:
    """What each label means: 0 or 1. Raises InputError if there are not two, or `positive` is none of them."""
    values = sorted(set(labels) - {""})
    if positive is not None:
        if positive not in values:
            raise InputError(f"no post of {data} has {positive!r} in `{column}`: use one of {_cut(values)}.")
        return {word: int(word == positive) for word in sorted(values, key=lambda word: word == positive)}
    words = guess_words(labels)
    if words is None and len({value.casefold() for value in values}) == 2:  # they differ in capitals alone
        spelt = guess_words(labels.str.casefold())
        words = spelt and {value: spelt[value.casefold()] for value in values}
    if words is None:
        raise InputError(
            f"column `{column}` of {data} has {len(values)} different labels ({_cut(values)}), more than the "
            f"{_MOST_CLASSES} that are taken for classes: name the one that is to be found with --positive, then all "
            f"others count as negative; or name another column with --label."
        )
    return words


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
            wrong = _cut([cell for cell in cells if not meaning(cell)])
            found.append(f"column `{unused[0]}` is not used, because of {wrong or 'its cells'}: all rows are taken")
    return found


def _cut(values: list[str]) -> str:
    """A few values in words: a column of posts may have been taken for one of labels."""
    return ", ".join(repr(value[:30]) for value in values[:8]) + (", ..." if len(values) > 8 else "")


def _positive(words: dict[str, int]) -> str:
    return next(word for word, code in words.items() if code)


def _say(found: Understood) -> None:
    columns = found.columns
    click.echo(f"{found.data}: {found.rows} rows")
    roles = ", ".join(f"{role} `{name}`" for role, name in columns._asdict().items() if name is not None)
    click.echo(f"columns: {roles}")
    click.echo(f"languages: {', '.join(f'{language(code).name} ({code})' for code in found.codes)}")
    means = {word: f" ({'positive' if code else 'negative'})" for word, code in found.words.items()}
    labels = ", ".join(f"{word!r} {count}{means.get(word, '')}" for word, count in found.counts.items())
    what = {"binary": "labels", "multiclass": "classes", "multilabel": "labels, of which a post may have several"}
    click.echo(f"{what[found.kind]}: {labels}")
    for note in found.notes:
        click.echo(f"note: {note}")
