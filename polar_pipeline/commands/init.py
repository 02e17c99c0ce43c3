"""`polar init`: look at files of posts, say what was understood, and write a task card and a profile for them."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pandas as pd

from polar_pipeline.commands.init_files import Understood, card_yaml, profile_yaml
from polar_pipeline.commands.init_labels import Labels, a_few, understand_labels
from polar_pipeline.corpus.columns import find_column, has_columns, wrong_delimiter
from polar_pipeline.corpus.guess import FLAGS, Guess, could_be_text, guess_columns, guess_language, named_columns
from polar_pipeline.corpus.identification import language_shares
from polar_pipeline.corpus.parts import is_beside
from polar_pipeline.corpus.sources import Source, find_sources, split_of
from polar_pipeline.corpus.text import duplicate_groups, is_blank
from polar_pipeline.errors import InputError
from polar_pipeline.settings.files import FileFormat
from polar_pipeline.settings.profile import bundled_profiles, name_of_file
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.tables.rows import Rows
from polar_pipeline.tables.table_file import AUTO, suffix_of
from polar_pipeline.task.languages import LANGUAGES, language, language_code

_CLEAR = 0.5  # share of posts surely in one language from which it is taken for that of the file
_MIXED = 0.25  # share of posts surely in a second language from which the posts are not taken for those of one
_FOREIGN = 0.1  # share of posts in the language that a file's name seems to say, below which it says another thing
_FILE = "\0file"  # no column of a file has this name
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
    profile = folder / f"{name_of_file(Path(name)) if name else _default_name(data)}.yaml"
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


def _default_name(data: Path) -> str:
    """That of the file, after `posts-` where it does not begin with a letter from a to z."""
    try:
        return name_of_file(data)
    except InputError:
        plain = re.sub(r"[^a-z0-9]+", "-", data.name.partition(".")[0].lower()).strip("-")
        return f"posts-{plain}".strip("-")


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
    frame = _together(tables)
    known = _given_columns(data, frame, given, spoken)
    columns = guess_columns(frame, {role: names[0] if names else None for role, names in known.items()})
    if columns.text is None:
        raise InputError(f"no column of {data} looks like the posts: name it with --text.")
    sources, frame, left_out = _with_text(sources, tables, frame, columns.text)
    labels = understand_labels(data, frame, columns, tuple(known["label"]), given.positive)
    columns = columns._replace(label=labels.column)
    if given.language is not None:
        columns = columns._replace(language=None)
    elif columns.language is None and (guessed := guess_language(frame, columns)):
        columns = columns._replace(language=guessed)
        notes.append(f"that column `{guessed}` holds the languages was guessed from the posts")
    codes, doubts = _codes(frame, columns, sources, given.language)
    notes += [*left_out, *labels.notes, *_odd(frame, columns, labels), *_unused(frame, columns), *doubts]
    if len(tables) > 1:
        notes.append(f"files: {', '.join(str(source.path) for source in sources)}")
    return Understood(data, columns, len(frame), codes, labels, notes, given.form)


def _together(tables: list[Rows]) -> pd.DataFrame:
    """The rows of all tables, whose columns may differ in capitals, spaces and dashes; `_FILE` numbers the tables."""
    header, frames = list[str](), list[pd.DataFrame]()
    for place, table in enumerate(tables):
        names = {name: find_column(header, name) or name for name in table.header}
        header += [name for name in names.values() if name not in header]
        frames.append(table.frame.rename(columns=names).assign(**{_FILE: str(place)}))
    return pd.concat(frames, ignore_index=True).fillna("")


def _given_columns(data: Path, frame: pd.DataFrame, given: Given, spoken: str | None) -> dict[str, list[str]]:
    """The columns that were named, by role, as the file spells them. Raises InputError for one that is not there."""
    header = [str(name) for name in frame.columns if name != _FILE]
    wanted = {
        "text": [given.text] if given.text else [],
        "label": list(given.labels),
        "id": [given.id] if given.id else [],
        "language": [spoken] if spoken else [],
    }
    found: dict[str, list[str]] = {}
    for role, names in wanted.items():
        for name in names:
            if find_column(header, name) is None:
                raise InputError(f"{data} has no column `{name}` ({has_columns(header)}): correct --{role}.")
        found[role] = [column for name in names if (column := find_column(header, name))]
    taken = [column for columns in found.values() for column in columns]
    if twice := next((column for column in taken if taken.count(column) > 1), None):
        raise InputError(f"column `{twice}` of {data} was given twice: name another for one of the two.")
    if found["id"] and (again := int(frame[found["id"][0]].duplicated().sum())):
        raise InputError(
            f"column `{found['id'][0]}` of {data} repeats {again} ids, and each post needs one of its own: "
            f"correct --id, or leave it out."
        )
    return found


def _with_text(
    sources: list[Source], tables: list[Rows], frame: pd.DataFrame, text: str
) -> tuple[list[Source], pd.DataFrame, list[str]]:
    """The files that have the column of the posts, their rows, and a note on files that lie beside them.

    Raises InputError for a table with other columns.
    """
    left_out, notes = set[int](), list[str]()
    for place, table in enumerate(tables):
        if is_beside(table, text):
            left_out.add(place)
            notes.append(f"{table.path} is left out: it has no column `{text}`")
        elif find_column(table.header, text) is None:
            first = next(table.path for table in tables if find_column(table.header, text))
            raise InputError(
                f"{table.path} has no column `{text}`, which {first} has ({has_columns(table.header)}): give them the "
                f"same header, or take one of the files."
            )
    kept = frame[~frame[_FILE].isin({str(place) for place in left_out})].drop(columns=_FILE).reset_index(drop=True)
    return [source for place, source in enumerate(sources) if place not in left_out], kept, notes


def _codes(
    frame: pd.DataFrame, columns: Guess, sources: list[Source], given: str | None
) -> tuple[list[str], list[str]]:
    """The languages of the posts, and what is doubtful about them. Raises InputError if they cannot be told."""
    if columns.language is not None:
        cells = frame[columns.language]
        without = int((~cells.map(lambda cell: bool(language_code(cell)))).sum())
        doubts = [f"{without} rows have no language in `{columns.language}` and are left out"] if without else []
        return sorted({code for cell in cells.unique() if (code := language_code(cell))}), doubts
    shares = language_shares(frame[str(columns.text)].tolist(), seed=0)
    named = sorted({source.language for source in sources if source.language and not _is_word(source, shares)})
    seen = ", ".join(f"{share:.0%} {language(code).name}" for code, share in list(shares.items())[:4] if share >= 0.01)
    code = language_code(given) if given else next(iter(shares), None)
    if given and code is None:
        raise InputError(f"--language {given} is no language: write a code such as deu.")
    if code is None or (not given and not named and shares[code] < _CLEAR):
        raise InputError(
            f"the language of the posts cannot be told ({seen or 'nothing is sure'}): name it with --language."
        )
    second = list(shares)[1] if len(shares) > 1 else None
    if not given and not named and second and shares[second] >= _MIXED:
        raise InputError(
            f"the posts are in several languages ({seen}): add a column that says which, or name the one that all are "
            f"trained as with --language."
        )
    codes = named if named and not given else [code]
    others = {other: share for other, share in shares.items() if other not in codes and share >= 0.1}
    doubts = [] if given or named else [f"the language was told from the posts: surely {seen}"]
    if others:
        names = ", ".join(f"{share:.0%} in {language(other).name}" for other, share in others.items())
        doubts.append(f"posts in other languages: {names}; a column of languages would keep them apart")
    return codes, doubts


def _is_word(source: Source, shares: dict[str, float]) -> bool:
    """Whether a code in a file's name is more likely a word, as in my_data.csv: the posts are in another language."""
    whole = source.path.name.partition(".")[0].lower()
    first = next(iter(shares), None)
    other = first is not None and shares[first] >= _CLEAR and shares.get(str(source.language), 0.0) < _FOREIGN
    return other and len(re.split(r"[\W\d_]+", whole)) > 1


def _odd(frame: pd.DataFrame, columns: Guess, labels: Labels) -> list[str]:
    """What is worth a look before training."""
    text, counts = frame[str(columns.text)], labels.counts
    blank = text.map(is_blank).astype(bool)
    unlabelled = (labels.cells == "") & ~blank
    rows = pd.DataFrame({"text": text[~blank], "label": labels.cells[~blank]}).reset_index(drop=True)
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
    own = next(iter(named_columns("id", list(frame.columns))), None)
    if columns.id is None and own is not None and own not in columns and (again := int(frame[own].duplicated().sum())):
        found.append(f"column `{own}` repeats {again} ids, so it is not used: ids are made from the texts")
    texts = [name for name in frame.columns if name not in columns and could_be_text(frame[name])]
    if texts:
        found.append(f"texts too are in {a_few(texts)}, which are not used; --text names another column")
    for role, meaning in (("language", language_code), ("split", split_of)):
        taken = {name for name in columns if name is not None}
        unused = [name for name in named_columns(role, list(frame.columns)) if name not in taken]
        if getattr(columns, role) is None and unused:
            cells = [str(cell) for cell in frame[unused[0]].unique()]
            if {cell.strip() for cell in cells} <= FLAGS:  # such as extreme_language
                continue
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
