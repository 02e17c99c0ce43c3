"""What the cells of label columns mean, and the 0/1 targets that models learn and decisions give.

The column `label` of a posts table is 0 or 1 in a binary task, the number of the class in a multiclass task, and in a
multilabel task whether a post has any label; there, each label has a column of its own beside it.
"""

import pandas as pd
import yaml

from polar_pipeline.corpus.columns import Roles, find_column
from polar_pipeline.corpus.schemas import plain_cells, shown, some
from polar_pipeline.errors import InputError
from polar_pipeline.tables.rows import Rows
from polar_pipeline.task.card import MAIN_HEAD, TaskCard


def spread_labels(file: Rows, card: TaskCard) -> Rows:
    """The file with a column of 0 and 1 for each label, where one column of it holds the names of all labels of a post.

    Cells that stand for no label are emptied. An empty cell is a post without any of the labels, unless all cells of a
    file, or of one of its splits, are empty: those are not labelled. Raises InputError that names the row of a word
    that is no label.
    """
    file = _without_missing(file, card)
    column = find_column(file.header, card.label.column) if card.label.separator else None
    if column is None or card.label.separator is None:
        return file
    words, separator = card.named, card.label.separator
    given = file.frame[column].map(lambda cell: labels_in(cell, separator))
    for row, found in given.items():
        if unknown := [word for word in found if word.casefold() not in words]:
            raise InputError(
                f"{file.place(int(str(row)))}: column `{column}` has {shown(unknown[0])}, which is none of the labels "
                f"{some(card.targets)}: correct it, or add it to `labels` of the task card."
            )
    numbers = given.map(lambda found: {words[word.casefold()] for word in found})
    split = find_column(file.header, card.columns.split) if card.columns.split else None
    parts = file.frame[split] if split else pd.Series("", index=file.frame.index)
    labelled = file.frame[column].str.strip().ne("").groupby(parts).transform("any")
    spread = {
        name: numbers.map(lambda found, place=place: str(int(place in found))).where(labelled, "")
        for place, name in enumerate(card.label_columns.values())
    }
    return file._replace(frame=file.frame.assign(**spread).astype("str"))


def _without_missing(file: Rows, card: TaskCard) -> Rows:
    """The file with empty cells where its label columns hold what stands for no label."""
    missing = {word.strip().casefold() for word in card.label.missing}
    wanted = [card.label.column, *([] if card.label.separator else card.label_columns.values())]
    columns = [column for name in wanted if name and (column := find_column(file.header, name))]
    if not missing or not columns:
        return file
    emptied = {name: file.frame[name].mask(plain_cells(file.frame[name]).isin(missing), "") for name in columns}
    return file._replace(frame=file.frame.assign(**emptied))


def labels_in(cell: str, separator: str) -> list[str]:
    """The names in a cell such as `anger; fear`, `["anger", "fear"]`, `['anger']` or `[]`."""
    text = cell.strip()
    if text.startswith("[") and text.endswith("]"):
        # JSON, Python's repr and plain words in brackets are all sequences of YAML; this loader makes texts alone
        try:
            listed = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506
        except (yaml.YAMLError, RecursionError):
            listed = None
        if isinstance(listed, list) and all(isinstance(one, str) for one in listed):
            return [one.strip() for one in listed if one.strip()]
    return [one.strip() for one in text.split(separator) if one.strip()]


def read_labels(rows: pd.DataFrame, roles: Roles, card: TaskCard) -> pd.DataFrame:
    """The label columns (Int8) of checked rows as a posts table has them; an empty cell is missing."""
    if card.kind == "multilabel":
        table = pd.DataFrame({name: _codes(rows[column], card.label.codes) for name, column in roles.labels.items()})
        label = table.max(axis=1, skipna=False).astype("Int8")
    else:
        table = pd.DataFrame(index=rows.index)
        label = _codes(rows[str(roles.label)], card.classes or card.label.codes)
    table.insert(0, "label", label)
    return table


def auxiliary_labels(rows: pd.DataFrame, roles: Roles, card: TaskCard) -> pd.DataFrame:
    """The finer labels (Int8) of checked rows; missing where the files lack them."""
    missing = pd.Series(pd.NA, index=rows.index, dtype="Int8")
    columns = {name: roles.auxiliary.get(name) for name in card.auxiliary.columns}
    found = {name: _codes(rows[column], card.label.codes) if column else missing for name, column in columns.items()}
    return pd.DataFrame(found, index=rows.index)


def target_labels(posts: pd.DataFrame, card: TaskCard) -> pd.DataFrame:
    """The 0/1 label (Int8, missing where a post has none) of each of the card's `targets`, a column each."""
    return labels_of_targets(posts, card.kind, card.targets)


def labels_of_targets(posts: pd.DataFrame, kind: str, targets: tuple[str, ...]) -> pd.DataFrame:
    """As `target_labels`, where the card is not at hand."""
    if kind == "multiclass":
        known = posts["label"]
        found = {name: (known == place).astype("Int8") for place, name in enumerate(targets)}
        return pd.DataFrame(found, index=posts.index)
    return posts[list(targets)] if kind == "multilabel" else posts[["label"]].set_axis([MAIN_HEAD], axis=1)


def _codes(column: "pd.Series[str]", codes: dict[str, int]) -> "pd.Series[int]":
    return plain_cells(column).map(codes).astype("Int8")
