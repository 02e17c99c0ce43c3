"""What labels the posts of unknown files have: two words, several classes, or several labels of a post."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from polar_pipeline.corpus.guess import (
    FLAGS,
    MOST_LABELS,
    Guess,
    guess_separator,
    guess_several,
    guess_words,
    named_columns,
    other_labels,
    says,
    says_positive,
)
from polar_pipeline.corpus.labels import labels_in
from polar_pipeline.errors import InputError

_LONGEST_NAME = 5  # words of a column
_MARK = 4  # characters of a mark such as x or yes
_MISSING = ("nan", "na", "n/a", "<na>", "null", "nat", "?", "-")  # what programs write where there is no label
_FRACTION = re.compile(r"-?\d*[.,]0*[1-9]\d*")


@dataclass(frozen=True)
class Labels:
    """The labels of a file. `cells` says of each row what labels it has; empty where it has none."""

    kind: Literal["binary", "multiclass", "multilabel"]
    column: str | None  # None: each label has one of its own
    cells: "pd.Series[str]"
    counts: dict[str, int]  # labelled posts of each word, class or label
    words: dict[str, int] = field(default_factory=dict)  # 0 or 1 for each word of a binary task
    separator: str | None = None  # of the names in the column
    missing: list[str] = field(default_factory=list)  # what stands for no label
    notes: list[str] = field(default_factory=list)


def understand_labels(
    data: Path, frame: pd.DataFrame, columns: Guess, given: tuple[str, ...], positive: str | None
) -> Labels:
    """What the labels in `frame` are; `given` are their columns, if known, and `positive` the word that is to be found.

    Raises InputError that says what to give where it cannot be told.
    """
    several = given if len(given) > 1 else () if given else tuple(guess_several(frame, columns))
    if several and not given and len({name.rstrip("0123456789_") for name in several}) == 1:
        raise InputError(
            f"columns {a_few(list(several))} of {data} seem to hold what several annotators said of one label: make a "
            f"column of the majority's, or name one with --label."
        )
    if several:
        return _columns_of_flags(data, frame, several)
    if positive is None and (listed := _listed(frame, columns, given)):
        return listed
    column, cells = str(columns.label), _one_column(data, frame, columns)
    others = [] if given else other_labels(frame, columns)
    notes = [f"that `{column}` holds the labels was guessed: {a_few(others)} could too; --label says it"] * bool(others)
    missing = sorted({value for value in cells if value.casefold() in _MISSING and value != positive})
    if missing:
        count = int(cells.isin(missing).sum())
        notes.append(f"{count} rows have {a_few(missing)} as their label, which is taken for none")
        cells = cells.mask(cells.isin(missing), "")
    values = sorted(set(cells) - {""})
    different = sorted({value.casefold() for value in values})
    if positive is None and 2 < len(different) <= MOST_LABELS:
        if any(_FRACTION.fullmatch(value) for value in values):
            notes.append("the labels are numbers with fractions: each is a class of its own, whatever its size")
        counts = {name: int((cells.str.casefold() == name).sum()) for name in different}
        spelt = {name: next(value for value in values if value.casefold() == name) for name in different}
        classes = {spelt[name]: count for name, count in counts.items()}
        return Labels("multiclass", column, cells, classes, missing=missing, notes=notes)
    words = _words(data, column, cells, positive)
    found = next(word for word, code in words.items() if code)
    if positive is None and not says_positive(words):
        notes.append(f"that {found!r} is the positive label was guessed; --positive names another")
    counts = {word: int((cells == word).sum()) for word in words}
    return Labels("binary", column, cells, counts, words, missing=missing, notes=notes)


def a_few(values: list[str]) -> str:
    """A few values in words: a column of posts may have been taken for one of labels."""
    return ", ".join(repr(value[:30]) for value in values[:8]) + (", ..." if len(values) > 8 else "")


def _columns_of_flags(data: Path, frame: pd.DataFrame, several: tuple[str, ...]) -> Labels:
    """Raises InputError for a column that has other words than for yes and no."""
    words = dict[str, int]()
    for name in several:
        values = {cell.strip().casefold() for cell in frame[name]} - {""}
        meant = {value: says(value) for value in values}
        if unknown := sorted(value for value, code in meant.items() if code is None):
            raise InputError(
                f"column `{name}` of {data} has {a_few(unknown)}, and each of several labels is a column of 0 and 1, "
                f"or of yes and no: name other columns, or one alone with --label."
            )
        words |= {value: code for value, code in meant.items() if code is not None}
    counts = {name: int(frame[name].map(lambda cell: says(cell) == 1).sum()) for name in several}
    notes = [f"{name} has no positive post: every post will be answered with 0" for name in several if not counts[name]]
    own = {word: code for word, code in words.items() if word not in FLAGS and word not in ("yes", "no")}
    return Labels("multilabel", None, frame[list(several)].agg("".join, axis=1), counts, own, notes=notes)


def _listed(frame: pd.DataFrame, columns: Guess, given: tuple[str, ...]) -> Labels | None:
    """The labels if a column holds the names of several in a cell: the given one, or one that is named like labels."""
    taken = {name for name in columns if name is not None and name != columns.label}
    free = [str(name) for name in frame.columns if name not in taken]
    for column in given or dict.fromkeys([*named_columns("label", free), *([columns.label] if columns.label else [])]):
        if separator := guess_separator(frame[column]):
            found = frame[column].map(lambda cell, by=separator: labels_in(cell, by))
            spelt = Counter(name for names in found for name in set(names))
            counts = dict[str, int]()
            for word in sorted({name.casefold() for name in spelt}):
                same = {name: count for name, count in spelt.items() if name.casefold() == word}
                counts[max(same, key=lambda name: (same[name], name))] = sum(same.values())
            none = int((found.map(len) == 0).sum())
            notes = [f"{none} posts have none of the labels, which is an answer too"] if none else []
            cells = found.map(lambda names: "; ".join(sorted(names)) or "none")
            return Labels("multilabel", column, cells, counts, {}, separator, notes=notes)
    return None


def _one_column(data: Path, frame: pd.DataFrame, columns: Guess) -> "pd.Series[str]":
    """The labels of the column that has them. Raises InputError if there is none."""
    if columns.label is None:
        named = next((name for name in named_columns("label", list(frame.columns)) if name not in columns), None)
        told = f"no column of {data} looks like a label: a label has a few different ones"
        marks = [str(name) for name in frame.columns if _is_marked(frame[name])]
        nested = [str(name) for name in frame.columns if frame[name].str.startswith("[{").any()]
        if nested:
            told = f"column `{nested[0]}` of {data} holds objects: export the labels as a column of their own"
        elif len(marks) > 1:
            told = f"columns {a_few(marks)} of {data} hold a mark or nothing: write 1 and 0 in them"
        elif named is not None:
            many = frame[named].nunique()
            told = f"column `{named}` of {data} has " + ("one value only" if many == 1 else f"{many} different values")
            told += f", and a label has from 2 to {MOST_LABELS}"
        raise InputError(f"{told}; name its column with --label.")
    labels = frame[columns.label].str.strip()
    if columns.label.strip() in set(labels) or len(str(columns.text).split()) > _LONGEST_NAME:
        raise InputError(
            f"{data} seems to have no header, because `{str(columns.text)[:40]}` and `{columns.label}` are no names: "
            f"add a first line such as text,label."
        )
    return labels


def _is_marked(cells: "pd.Series[str]") -> bool:
    """Whether some cells hold the same short mark and the others nothing."""
    found = set(cells.str.strip())
    return "" in found and len(found) == 2 and max(map(len, found)) <= _MARK


def _words(data: Path, column: str, labels: "pd.Series[str]", positive: str | None) -> dict[str, int]:
    """What each label means: 0 or 1. Raises InputError if there are not two, or `positive` is none of them."""
    values = sorted(set(labels) - {""})
    if positive is not None:
        if positive not in values:
            raise InputError(f"no post of {data} has {positive!r} in `{column}`: use one of {a_few(values)}.")
        return {word: int(word == positive) for word in sorted(values, key=lambda word: word == positive)}
    if len(values) < 2:
        raise InputError(f"column `{column}` of {data} has one value only, and a label has at least two: name another.")
    words = guess_words(labels)
    if words is None and len({value.casefold() for value in values}) == 2:  # they differ in capitals alone
        spelt = guess_words(labels.str.casefold())
        words = spelt and {value: spelt[value.casefold()] for value in values}
    if words is None:
        raise InputError(
            f"column `{column}` of {data} has {len(values)} different labels ({a_few(values)}), more than the "
            f"{MOST_LABELS} that are taken for classes: name the one that is to be found with --positive, then all "
            f"others count as negative; or name another column with --label."
        )
    return words
