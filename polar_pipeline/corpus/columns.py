"""Which columns of a file hold what, as the task card says, and what their cells mean."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from polar_pipeline.errors import InputError
from polar_pipeline.tables.dialect import DELIMITERS, NAMES
from polar_pipeline.tables.rows import Rows, TableFile
from polar_pipeline.task.card import TaskCard

_SHOWN = 12  # columns of a file in a message


class Roles(NamedTuple):
    """The names that columns have in a file; None and left out where the file has none."""

    text: str
    id: str | None
    label: str | None
    language: str | None
    split: str | None
    auxiliary: dict[str, str]  # by the card's name
    labels: Mapping[str, str] = MappingProxyType({})  # those of a multilabel task, by the card's name

    @property
    def decided(self) -> list[str]:
        """The columns of what is decided, as far as the file has them."""
        return list(self.labels.values()) if self.labels else [self.label] if self.label else []


def roles_of(file: TableFile | Rows, card: TaskCard) -> Roles:
    """The columns of a file by what they hold.

    Raises InputError if it has none for the texts, or lacks one that the card names and the file's name does not stand
    for.
    """
    wanted = card.columns

    def found(name: str | None) -> str | None:
        return None if name is None else find_column(file.header, name)

    def required(setting: str, name: str) -> str:
        column = found(name)
        if column is None and (other := wrong_delimiter(file.header)):
            raise InputError(
                f"{file.path} has one column: it is separated by {other} and `delimiter` of the task card says "
                f"otherwise: correct it."
            )
        if column is None:
            raise InputError(
                f"{file.path} has no column `{name}`: add it to the header, "
                f"or name the right one as {setting} of the task card; {has_columns(file.header)}."
            )
        return column

    return Roles(
        text=required("columns.text", wanted.text),
        id=required("columns.id", wanted.id) if wanted.id else found("id") if wanted.id is None else None,
        label=found(card.label.column) if card.label.column else None,
        language=required("columns.language", wanted.language) if wanted.language else None,
        split=required("columns.split", wanted.split) if wanted.split else None,
        auxiliary={name: column for name in card.auxiliary.columns if (column := found(name))},
        labels={name: column for name, wish in card.label_columns.items() if (column := found(wish))},
    )


def find_column(header: list[str], name: str) -> str | None:
    """The column of this name: as it is, else the first that differs in capitals, spaces and dashes alone."""
    if name in header:
        return name
    return next((column for column in header if _plain(column) == _plain(name)), None)


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "_", name.strip().casefold())


def wrong_delimiter(header: list[str]) -> str:
    """What separates the fields of a header that was read as one column, in words; empty if nothing does."""
    seen = next((one for one in DELIMITERS if one in header[0]), "") if len(header) == 1 else ""
    return NAMES.get(seen, "")


def has_columns(header: list[str]) -> str:
    """The columns of a file, in words."""
    shown = ", ".join(f"`{name}`" for name in header[:_SHOWN])
    more = f" and {len(header) - _SHOWN} more" if len(header) > _SHOWN else ""
    return f"it has {shown}{more}"
