"""What the cells of label columns mean, and the 0/1 targets that models learn and decisions give.

The column `label` of a posts table is 0 or 1 in a binary task, the number of the class in a multiclass task, and in a
multilabel task whether a post has any label; there, each label has a column of its own beside it.
"""

import pandas as pd

from polar_pipeline.corpus.columns import Roles
from polar_pipeline.corpus.schemas import plain_cells
from polar_pipeline.task.card import MAIN_HEAD, TaskCard


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
