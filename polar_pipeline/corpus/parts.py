"""What the files of a task hold of a language: its rows, split by split, and what their columns hold."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from polar_pipeline.corpus.columns import Roles, find_column, roles_of
from polar_pipeline.corpus.labels import spread_labels
from polar_pipeline.corpus.release import SPLITS
from polar_pipeline.corpus.schemas import enforce, file_schema, shown
from polar_pipeline.corpus.sources import Source, sources_of, split_of
from polar_pipeline.corpus.text import is_blank
from polar_pipeline.errors import InputError
from polar_pipeline.tables.rows import Rows, and_more
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.languages import language_code


class Part(NamedTuple):
    """Rows of one file, language and split, all columns as texts, and what their columns hold."""

    file: Rows
    rows: pd.DataFrame
    roles: Roles
    split: str

    @property
    def named(self) -> pd.DataFrame:
        """Ids (empty where there are none), texts and split of the rows."""
        ids = self.rows[self.roles.id] if self.roles.id else ""
        return pd.DataFrame({"id": ids, "text": self.rows[self.roles.text], "split": self.split}, dtype="str")

    def check(self, language: str, card: TaskCard, labels: bool, required: bool) -> None:
        """Raise InputError that names file, row and column of what is wrong; see `file_schema`."""
        schema = file_schema(self.roles, language, card, labels, required)
        enforce(schema, self.rows, str(self.file.path), self.file.place)


def read_parts(data: Path, language: str, card: TaskCard, tell: Callable[[str], None]) -> Iterator[Part]:
    """What the files of `data` hold of a language, as they are; `tell` is told what was guessed. See `read_posts`."""
    for source in sources_of(data, language, card.codes):
        file = spread_labels(source.read(card.files), card)
        if is_beside(file, card.columns.text):
            tell(f"{file.path}: left out, because it has no column `{card.columns.text}`")
            continue
        for note in file.notes:
            tell(f"{file.path}: {note}")
        roles = roles_of(file, card)
        mine = rows_of_language(file, source, roles, language, card, tell)
        for split, rows in _splits(file, source, roles, mine):
            if split == "dev" and not _labelled(rows, roles).any():
                tell(f"{file.path}: no post of dev has a label, so they are predicted like those of test")
                split = "test"
            yield Part(file, with_texts(file, rows, roles, card, tell), roles, split)


def is_beside(file: Rows, text: str) -> bool:
    """Whether a file lies beside those of the posts for another reason, such as a licence: a text without columns."""
    return file.path.suffix.lower() == ".txt" and len(file.header) == 1 and find_column(file.header, text) is None


def rows_of_language(
    rows: Rows, source: Source, roles: Roles, language: str, card: TaskCard, tell: Callable[[str], None]
) -> pd.DataFrame:
    """Those rows of a file that are in a language, by its column, else by the file's name or the card.

    Raises InputError if nothing says it, or for a row without a language unless the card leaves out bad rows.
    """
    column = roles.language
    if column is not None:
        codes = rows.frame[column].map(language_code)
        if (unknown := codes.isna()).any():
            row = int(str(unknown.idxmax()))
            value = shown(rows.frame[column][row])
            if card.files.skip_bad:
                tell(f"{rows.path}: {int(unknown.sum())} rows are left out, whose `{column}` is no language ({value})")
                return rows.frame[codes == language]
            raise InputError(
                f"{rows.place(row)}: column `{column}` is {value}, which is no language: "
                f"write a code such as {language}{and_more(int(unknown.sum()) - 1)}."
            )
        return rows.frame[codes == language]
    if source.language is None and len(card.codes) > 1:
        raise InputError(
            f"{rows.path} does not say which language its posts are in: name the column that does as columns.language "
            f"of the task card, or the only language as `languages`."
        )
    return rows.frame


def _labelled(rows: pd.DataFrame, roles: Roles) -> "pd.Series[bool]":
    """Which rows have something in a column of the labels."""
    nothing = pd.Series(False, index=rows.index)
    return rows[roles.decided].apply(lambda cells: cells.str.strip().ne("")).any(axis=1) if roles.decided else nothing


def _splits(rows: Rows, source: Source, roles: Roles, mine: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each split: by their column, else by the file's name, else by whether they have a label."""
    if roles.split is not None:
        splits = mine[roles.split].map(split_of)
        if (unknown := splits.isna()).any():
            row = int(str(unknown.idxmax()))
            value = shown(mine[roles.split][row])
            raise InputError(
                f"{rows.place(row)}: column `{roles.split}` is {value}, which should be train, dev or test: "
                f"correct it{and_more(int(unknown.sum()) - 1)}."
            )
    elif source.split is not None:
        splits = pd.Series(source.split, index=mine.index)
    else:
        splits = _labelled(mine, roles).map({True: "train", False: "test"})
    yield from ((split, mine[splits == split]) for split in SPLITS if (splits == split).any())


def with_texts(
    rows: Rows, part: pd.DataFrame, roles: Roles, card: TaskCard, tell: Callable[[str], None]
) -> pd.DataFrame:
    """The rows that have a text, if the card says that others are left out; else all."""
    if not card.files.skip_bad:
        return part
    blank = part[roles.text].map(is_blank).astype(bool)
    if blank.any():
        tell(f"{rows.path}: {int(blank.sum())} rows without a text are left out")
    return part[~blank]
