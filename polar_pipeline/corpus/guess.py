"""What the columns of an unknown file hold: guessed from their names, and from their cells where names say nothing.

A guess is only as good as the sentence that tells it: whoever uses one says what was taken for what.
"""

import re
from collections import Counter
from typing import NamedTuple

import pandas as pd

from polar_pipeline.corpus.labels import labels_in
from polar_pipeline.corpus.sources import split_of
from polar_pipeline.task.languages import language_code

_ROLES = {
    "text": "text texts post posts tweet tweets comment comments content body message messages sentence review "
    "document kommentar beitrag texto texte testo tekst full_text clean_text",
    "label": "label labels class target gold annotation category sentiment polarity stance toxic hate hate_speech "
    "hatespeech offensive polarization polarisation is_hate is_toxic etiqueta klasse emotion emotions topic topics "
    "tags categories",
    "id": "id ids index tweet_id post_id comment_id text_id doc_id uid uuid guid",
    "language": "language lang languages locale language_code lang_code sprache idioma langue",
    "split": "split set partition subset fold_name dataset_split",
}
_POSITIVE = "1 1.0 true yes y positive pos hate hateful toxic offensive polarized polarised spam abusive ja si oui da"
_NEGATIVE = "0 0.0 false no n negative neg neutral none normal clean ham nein non not"
_FEW = 20  # different values up to which a column can hold classes
_SEVERAL = 3  # columns of 0 and 1 that are labels and no flags
_FLAGS = {"0", "1", "0.0", "1.0", "true", "false", "True", "False", ""}
_SEPARATORS = (";", "|", ",", "/", "+")  # of names in a cell
_LONGEST_NAME = 4  # words of a label
MOST_LABELS = 50
_SAMPLE = 2000  # rows whose cells are looked at


class Guess(NamedTuple):
    """The columns of a file by what they seem to hold; None where none does."""

    text: str | None
    label: str | None
    id: str | None
    language: str | None
    split: str | None


def guess_columns(frame: pd.DataFrame, given: dict[str, str | None]) -> Guess:
    """Guess what each column of texts holds; `given` are roles that are known."""
    rows = frame.head(_SAMPLE)
    found = {role: column for role, column in given.items() if column is not None}
    order = ("split", "language", "text", "label", "id")
    # all names are asked before cells: a column of yes and no is no column of languages where it is named label
    for ask in (_by_name, _by_cells):
        for role in order:
            if role not in found and (column := ask(role, rows, set(found.values()))):
                found[role] = column
    return Guess(*(found.get(role) for role in Guess._fields))


def guess_several(frame: pd.DataFrame, columns: Guess) -> list[str]:
    """Columns of 0 and 1 that together look like several labels of a post; empty where one column says it all.

    There are at least three, and none of them is named as a label alone would be.
    """
    taken = {name for name in columns if name is not None and name != columns.label}
    flags = [str(name) for name in frame.columns if name not in taken and set(frame[name].str.strip()) <= _FLAGS]
    flags = [name for name in flags if (frame[name].str.strip() != "").any()]
    alone = columns.label is not None and columns.label in named_columns("label", list(frame.columns))
    return flags if len(flags) >= _SEVERAL and not alone else []


def guess_separator(cells: "pd.Series[str]") -> str | None:
    """What separates names where cells hold the names of several labels, such as `anger; fear`; None if they do not.

    Most names stand in several cells, and there are not many: commas separate the clauses of a text as well.
    """
    filled = cells[cells.str.strip() != ""]
    if len(filled) and (filled.str.match(r"\s*\[.*\]\s*$")).all():
        separators = [","]
    else:
        separators = [one for one in _SEPARATORS if filled.str.contains(one, regex=False).any()]
    for separator in separators:
        found = filled.map(lambda cell, by=separator: labels_in(cell, by))
        counts = Counter(name for names in found for name in set(names))
        often = sum(count > 1 for count in counts.values())
        short = all(len(name.split()) <= _LONGEST_NAME for name in counts)
        combined = {tuple(names) for names in found if len(names) > 1}
        alone = {names[0] for names in found if len(names) == 1}
        # in "hate, strong" and "hate, weak" no name stands alone, nor in other company
        free = len(combined) > 1 and (alone & set(counts) or len(combined) > len(counts))
        if 2 <= len(counts) <= MOST_LABELS and short and 2 * often > len(counts) and free:
            return separator
    return None


def guess_words(values: "pd.Series[str]") -> dict[str, int] | None:
    """Which of two labels is 1: the one whose word says so, else the rarer one. None unless there are two."""
    counts = Counter(values[values != ""])
    if len(counts) != 2:
        return None
    rare = min(counts, key=lambda word: (counts[word], word))
    positive = next((word for word in counts if _says(word, _POSITIVE)), None)
    negative = next((word for word in counts if _says(word, _NEGATIVE)), None)
    if positive is None:
        positive = next(word for word in counts if word != negative) if negative is not None else rare
    return {word: int(word == positive) for word in sorted(counts, key=lambda word: word == positive)}


def says_positive(words: dict[str, int]) -> bool:
    """Whether the words themselves say which of them is 1."""
    says = [_says(word, _POSITIVE if code else _NEGATIVE) for word, code in words.items()]
    numbers = all(re.fullmatch(r"[-+\d.]+", word.strip()) for word in words)
    return all(says) if numbers else any(says)  # 1 is the other one in 0/1, and nobody knows in 1/2


def named_columns(role: str, columns: list[str]) -> list[str]:
    """The columns whose names say that they hold this, the surest first."""
    known = _ROLES[role].split()
    whole = sorted((name for name in columns if _plain(name) in known), key=lambda name: known.index(_plain(name)))
    return whole + [name for name in columns if name not in whole and set(_plain(name).split("_")) & set(known)]


def _by_name(role: str, rows: pd.DataFrame, taken: set[str]) -> str | None:
    named = named_columns(role, [str(name) for name in rows.columns if name not in taken])
    return next((name for name in named if _fits(role, rows[name])), None)


def _by_cells(role: str, rows: pd.DataFrame, taken: set[str]) -> str | None:
    if role == "id":  # any other column of different cells could be taken for ids
        return None
    others = [str(name) for name in rows.columns if name not in taken and _fits(role, rows[name])]
    if role == "text":
        return max(others, key=lambda name: rows[name].str.len().mean(), default=None)
    if role == "label":  # the fewest classes, and of equals the last column, where labels usually stand
        return min(reversed(others), key=lambda name: rows[name].nunique(), default=None)
    return others[0] if others else None


def _fits(role: str, cells: "pd.Series[str]") -> bool:
    filled = cells[cells.str.strip() != ""]
    if filled.empty:
        return False
    values = filled.unique()
    if role == "text":
        return len(values) > 0.5 * len(filled) and filled.str.contains(r"\s\S+\s").mean() > 0.3
    if role == "label":
        return 2 <= len(values) <= _FEW and len(values) < 0.5 * len(filled) + 1
    if role == "id":
        return bool(filled.is_unique) and len(filled) == len(cells)
    meaning = language_code if role == "language" else split_of
    words = {str(value).strip().casefold() for value in values}
    if words <= {*_POSITIVE.split(), *_NEGATIVE.split()}:  # `yes`, `no` and `hate` are codes or names of languages too
        return False
    return len(values) <= 200 and all(meaning(str(value)) for value in values)


def _says(word: str, words: str) -> bool:
    return word.strip().casefold() in words.split()


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.strip().casefold()).strip("_")
