"""Synthetic posts that a team has already: read from files in any form, checked, and given a fold.

A post inherits the fold of the real training posts that its row names. One that names none gets the fold of the real
post that it is like; the rest are dealt evenly. The same rows give the same table in any order.
"""

import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import regex

from polar_pipeline.corpus.columns import find_column, roles_of
from polar_pipeline.corpus.labels import read_labels, spread_labels
from polar_pipeline.corpus.parts import Part, is_beside, rows_of_language, with_texts
from polar_pipeline.corpus.posts import REAL, made_ids
from polar_pipeline.corpus.schemas import shown
from polar_pipeline.corpus.sources import Source, find_sources
from polar_pipeline.corpus.text import bare
from polar_pipeline.endpoint.client import Say
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Ints
from polar_pipeline.settings.files import FileFormat
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.storage.fingerprint import file_sha256
from polar_pipeline.synthesis.posts import ids_json, posts_table
from polar_pipeline.tables.opening import kind_of
from polar_pipeline.tables.rows import Rows, and_more
from polar_pipeline.task.card import Columns, TaskCard

SOURCE = "file"
PARENT, SHOWN = "parent_id", "shown"
MADE_HERE = ("source", "kept", "reason")  # columns that `polar synth export` adds, by which its files are known
_DELIMITED = (".csv", ".tsv", ".tab", ".txt")
# what spreadsheets take for a formula, after any number of apostrophes; the last four are wide forms of the first
_FORMULA = regex.compile("'*[=+\\-@\t\r\uff1d\uff0b\uff0d\uff20]")

# gives for each text the place, among the other texts, of the one that it was probably made from, int64, -1 for none
LikelyParents = Callable[[list[str], list[str]], Ints]


def posts_from_file(
    posts: pd.DataFrame,
    language: str,
    card: TaskCard,
    settings: SynthesisSettings,
    likely_parents: LikelyParents,
    say: Say,
) -> pd.DataFrame:
    """The synthetic posts of a language in the files at `settings.path`, in the order of their ids; there may be none.

    `posts` is the table of real posts with folds; columns are those of `posts.posts_table`. Raises InputError that
    names file, row and column of what is wrong, and what to do.
    """
    path = check_path(settings)
    parts = list(_read(path, language, card, lambda line: say(f"{language}: {line}")))
    if not parts:
        say(f"{language}: {path} holds no synthetic post of this language")
        return posts_table([], card)
    given = pd.concat(parts, ignore_index=True)
    _refuse_canaries(given, card)
    _refuse_ids(given, posts, card)
    given = _inherited_folds(given, posts, language)
    # ids are made after sorting, so that two posts of one text get the same ones in any order; unnamed ones come last
    given = given.assign(unnamed=given["id"] == "")
    given = given.sort_values(["unnamed", "id", "text", "label", PARENT, SHOWN], ignore_index=True)
    made = made_ids(given.assign(id="", split="train"))
    given["id"] = given["id"].where(~given["unnamed"], f"{language}_{SOURCE}_" + made)
    given = _with_folds(given.sort_values("id", ignore_index=True), posts, likely_parents)
    rows = given.assign(split="train", source=SOURCE, request="").drop(columns=["place", "unnamed"])
    return posts_table(rows.to_dict("records"), card)  # type: ignore[arg-type]


def check_path(settings: SynthesisSettings) -> Path:
    """The file or folder of the posts. Raises InputError if it is not there."""
    path = Path(str(settings.path))
    if not path.exists():
        raise InputError(f"synthesis.path {path} does not exist: correct it.")
    return path


def files_sha256(settings: SynthesisSettings, language: str, languages: Collection[str]) -> dict[str, str]:
    """sha256 of the files that may hold a language's posts, by their path under `settings.path`; none if it is gone."""
    path = Path(str(settings.path))
    root = path.parent if path.is_file() else path
    try:
        files = [file for source in _sources(path, language, languages) for file in source.files]
    except InputError:  # reading names what is wrong
        return {}
    return {file.relative_to(root).as_posix(): file_sha256(file) for file in files}


def without_formula(text: str) -> str:
    """A text as a cell that no spreadsheet takes for a formula: with an apostrophe before what begins like one."""
    return f"'{text}" if _FORMULA.match(text) else text


def original_text(cell: str) -> str:
    """The text of a cell that `without_formula` made."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _sources(path: Path, language: str, languages: Collection[str]) -> list[Source]:
    """The tables that may hold posts of a language. The name of a file alone is that of no language if rows say it."""
    found = find_sources(path, languages)
    return found if path.is_file() else [one for one in found if one.language in (None, language)]


def _read(path: Path, language: str, card: TaskCard, tell: Say) -> Iterator[pd.DataFrame]:
    """The language's rows of each file: place (in words), id ("" for none), text, label, parent_id, shown."""
    for source in _sources(path, language, card.codes):
        # how the files of `data` are written says nothing of these
        file = _with_original_texts(source.read(FileFormat(skip_bad=card.files.skip_bad)), card)
        if is_beside(file, card.columns.text):
            tell(f"{file.path}: left out, because it has no column `{card.columns.text}`")
            continue
        for note in file.notes:
            tell(f"{file.path}: {note}")
        own = _card_of(file, card)
        if own.columns.language is None and source.language not in (None, language):
            continue
        if own.columns.language is None and source.language is None and len(card.codes) > 1:
            raise InputError(
                f"{file.path} does not say which language its posts are in: add a column `{language_column(card)}`, "
                f"or name the file after it, such as {language}{file.path.suffix}."
            )
        file = spread_labels(file, own)
        roles = roles_of(file, own)
        rows = with_texts(file, rows_of_language(file, source, roles, language, own, tell), roles, own, tell)
        if rows.empty:
            continue
        Part(file, rows, roles._replace(id=None), "train").check(language, own, labels=True, required=True)
        frame = Part(file, rows, roles, "train").named[["id", "text"]]
        for name in (PARENT, SHOWN):
            column = find_column(file.header, name)
            frame[name] = rows[column].str.strip() if column else ""
        frame["id"] = frame["id"].str.strip()
        frame["label"] = read_labels(rows, roles, card)["label"]
        yield frame.assign(place=[file.place(int(row)) for row in rows.index])


def _card_of(file: Rows, card: TaskCard) -> TaskCard:
    """The task card with what of its columns this file has: ids and languages may be missing, splits mean nothing."""
    spoken, own = find_column(file.header, language_column(card)), find_column(file.header, id_column(card))
    columns = Columns(text=card.columns.text, id=own or "", language=spoken)
    return card.model_copy(update={"columns": columns, "id_begins": ""})


def language_column(card: TaskCard) -> str:
    """The column with the languages of rows, if a file has any."""
    return card.columns.language or "language"


def id_column(card: TaskCard) -> str:
    """The column with the ids, if a file has any."""
    return card.columns.id or "id"


def _with_original_texts(file: Rows, card: TaskCard) -> Rows:
    """The file; one that `polar synth export` wrote for spreadsheets without the apostrophes before formulas."""
    if kind_of(file.path) not in _DELIMITED or not all(find_column(file.header, name) for name in MADE_HERE):
        return file
    names = [find_column(file.header, name) for name in (id_column(card), card.columns.text, PARENT)]
    return file._replace(
        frame=file.frame.assign(**{name: file.frame[name].map(original_text) for name in names if name})
    )


def _refuse_canaries(given: pd.DataFrame, card: TaskCard) -> None:
    marks = [mark for mark in map(bare, card.canaries) if mark]
    found = given[given["text"].map(bare).map(lambda text: any(mark in text for mark in marks)).astype(bool)]
    if len(found):
        raise InputError(
            f"{found['place'].iloc[0]}: column `{card.columns.text}` contains a canary, the mark of texts that must "
            f"never be trained on: remove the row{and_more(len(found) - 1)}."
        )


def _refuse_ids(given: pd.DataFrame, posts: pd.DataFrame, card: TaskCard) -> None:
    """Raise InputError for an id that another row or a real post has."""
    remedy = f"give it another or none, and name the post that it was made from as `{PARENT}`"
    for wrong, problem in (
        ((given["id"] != "") & given["id"].duplicated(), "which an earlier row has too: give each post its own"),
        (given["id"].isin(posts["id"]), f"which is the id of a real post: {remedy}"),
    ):
        if wrong.any():
            row, more = given[wrong].iloc[0], and_more(int(wrong.sum()) - 1)
            raise InputError(f"{row['place']}: column `{id_column(card)}` is {shown(row['id'])}, {problem}{more}.")


def _inherited_folds(given: pd.DataFrame, posts: pd.DataFrame, language: str) -> pd.DataFrame:
    """The rows with the `fold` of the real posts that they name, -1 where they name none, and all of them in `shown`.

    Raises InputError for a post that is unknown or not of train, and for posts of different folds.
    """
    real = posts[posts["source"] == REAL]
    splits = dict(zip(real["id"], real["split"], strict=True))
    training = real[(real["split"] == "train") & (real["fold"] >= 0)]
    folds = {str(name): int(fold) for name, fold in zip(training["id"], training["fold"], strict=True)}
    found, named, complaints = list[int](), list[str](), list[str]()
    for place, parent, cell in zip(given["place"], given[PARENT], given[SHOWN], strict=True):
        listed = _ids(cell)
        names = tuple(dict.fromkeys([*([parent] if parent else []), *(listed or [])]))
        strange = next((name for name in names if name not in folds), None)
        mine = sorted({folds[name] for name in names if name in folds})
        if listed is None:
            complaints.append(f"{place}: column `{SHOWN}` is {shown(cell)}, which is no JSON list of ids: correct it")
        elif strange is not None:
            column, of = PARENT if strange == parent else SHOWN, f"is no post of {language}: correct it, or empty it"
            if strange in splits:
                of = f"is of {splits[strange]}, and only posts of train may be made into others: remove the row"
            complaints.append(f"{place}: column `{column}` has {shown(strange)}, which {of}")
        elif len(mine) > 1:
            complaints.append(
                f"{place}: `{PARENT}` and `{SHOWN}` name posts of the folds {', '.join(map(str, mine))}, and a model "
                "sees all or none of them: remove the row, or set `seed` and `folds` as they were when it was made"
            )
        found.append(mine[0] if mine else -1)
        named.append(ids_json(names))
    if complaints:
        raise InputError(f"{complaints[0]}{and_more(len(complaints) - 1)}.")
    return given.assign(fold=found, shown=named)


def _ids(cell: str) -> list[str] | None:
    """The ids of a JSON list, none for an empty cell; None for what is no such list."""
    try:
        found = json.loads(cell) if cell else []
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else None


def _with_folds(given: pd.DataFrame, posts: pd.DataFrame, likely_parents: LikelyParents) -> pd.DataFrame:
    """Rows that name no post get the fold of the post that each is like, noted in `shown`, else the next one in turn.

    In turn by label, so that each fold gets as many of each label, give or take one.
    """
    pool = posts[(posts["source"] == REAL) & (posts["fold"] >= 0)].sort_values(["id", "split"], ignore_index=True)
    unknown = np.flatnonzero(given["fold"] < 0)
    if not len(unknown):
        return given
    folds, named = given["fold"].to_numpy(dtype=int).copy(), given[SHOWN].tolist()
    nearest = likely_parents(given["text"].iloc[unknown].tolist(), pool["text"].tolist())
    alike, parents = unknown[nearest >= 0], pool.iloc[nearest[nearest >= 0]]
    folds[alike] = parents["fold"]
    for row, name, split in zip(alike, parents["id"], parents["split"], strict=True):
        if split == "train":  # a post of dev that is in a fold is no parent to name
            named[row] = ids_json((str(name),))
    rest = unknown[nearest < 0]
    in_turn = rest[np.argsort(given["label"].iloc[rest].to_numpy(dtype=int), kind="stable")]
    some = np.sort(pool["fold"].unique().astype(int))
    folds[in_turn] = some[np.arange(len(in_turn)) % len(some)]
    return given.assign(fold=folds, shown=named)
