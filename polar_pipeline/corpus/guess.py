"""What the columns of an unknown file hold: guessed from their names, and from their cells where names say nothing.

A guess is only as good as the sentence that tells it: whoever uses one says what was taken for what.
"""

import re
from collections import Counter
from typing import NamedTuple, TypeVar

import pandas as pd
import regex

from polar_pipeline.corpus.identification import is_identified, language_shares
from polar_pipeline.corpus.labels import labels_in
from polar_pipeline.corpus.sources import split_of
from polar_pipeline.task.languages import language, language_code

_ALONE = "label labels class target gold gold_label final_label majority majority_vote annotation "
_ALONE += "sentiment polarity"
_ROLES = {
    "text": "text texts post posts tweet tweets comment comments content body message messages sentence review "
    "document kommentar beitrag beitragstext texto texte testo tekst full_text clean_text inhalt nachricht",
    "label": f"{_ALONE} stance toxic hate hate_speech hatespeech offensive polarization polarisation is_hate is_toxic "
    "etiqueta klasse bewertung emotion emotions topic topics tags categories",
    "id": "id ids index tweet_id post_id comment_id text_id doc_id uid uuid guid",
    "language": "language lang languages locale language_code lang_code sprache idioma langue",
    "split": "split set partition subset fold_name dataset_split",
}
_POSITIVE = "1 1.0 true yes y positive pos hate hateful toxic offensive polarized polarised spam abusive "
_POSITIVE += "ja si oui da ano tak evet"
_NEGATIVE = "0 0.0 false no n negative neg neutral none normal clean ham nein non not ne nie hayir"
_FEW = 20  # different values up to which a column can hold classes whatever its name
_ENOUGH = 20  # posts from which the share of a language says something
_SEVERAL = 3  # columns of 0 and 1 that are labels and no flags
FLAGS = {"0", "1", "0.0", "1.0", "true", "false", "True", "False", ""}
# words of a text: a blank on both sides, or letters of scripts that have no blanks
_WORDS = regex.compile(r"\s\S+\s|[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}]{4}")
_SEPARATORS = (";", "|", ",", "/", "+")  # of names in a cell
_LONGEST_NAME = 4  # words of a label
MOST_LABELS = 50
_SAMPLE = 2000  # rows whose cells are looked at


Table = TypeVar("Table", pd.DataFrame, "pd.Series[str]")


class Guess(NamedTuple):
    """The columns of a file by what they seem to hold; None where none does."""

    text: str | None
    label: str | None
    id: str | None
    language: str | None
    split: str | None


def guess_columns(frame: pd.DataFrame, given: dict[str, str | None]) -> Guess:
    """Guess what each column of texts holds; `given` are roles that are known."""
    rows = sampled(frame)
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
    flags = [str(name) for name in frame.columns if name not in taken and set(frame[name].str.strip()) <= FLAGS]
    flags = [name for name in flags if (frame[name].str.strip() != "").any()]
    named = [name for name in named_columns("label", [str(name) for name in frame.columns]) if name in flags]
    alone = columns.label is not None and columns.label in named_columns("label", list(frame.columns))
    # toxic beside obscene and severe_toxic is one of several, hate beside is_reply and is_retweet is not
    together = columns.label in flags and _plain(str(columns.label)) not in _ALONE.split() and len(named) > 1
    return flags if len(flags) >= _SEVERAL and (together or not alone) else []


def other_labels(frame: pd.DataFrame, columns: Guess) -> list[str]:
    """Further columns that could hold the labels, where the name of the taken one does not say that it does."""
    if columns.label is None or _plain(columns.label) in _ALONE.split():
        return []
    rows = sampled(frame)
    return [str(name) for name in frame.columns if name not in columns and _fits("label", rows[name])]


def guess_language(frame: pd.DataFrame, columns: Guess) -> str | None:
    """A column, whatever its name, whose codes or names of languages are what the posts seem to be in; None if none is.

    Many short words are codes: Mon and Tue are Mongolian and Tuyuca.
    """
    rows = sampled(frame)
    for name in (str(name) for name in frame.columns if name not in columns and _fits("language", rows[name])):
        codes = rows[name].map(language_code)
        right = [
            next(iter(language_shares(texts.tolist(), seed=0)), None) == code
            for code, texts in rows[str(columns.text)].groupby(codes)
            if len(texts) >= _ENOUGH and is_identified(language(str(code)))
        ]
        if right and all(right):
            return name
    return None


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
    return whole + [name for name in columns if name not in whole and set(re.split(r"[_.]", _plain(name))) & set(known)]


def _by_name(role: str, rows: pd.DataFrame, taken: set[str]) -> str | None:
    named = named_columns(role, [str(name) for name in rows.columns if name not in taken])
    return next((name for name in named if _fits(role, rows[name], named=True)), None)


def _by_cells(role: str, rows: pd.DataFrame, taken: set[str]) -> str | None:
    if role in ("id", "language"):  # any column of different cells, or of short words, could be taken for them
        return None
    free = [str(name) for name in rows.columns if name not in taken]
    others = [name for name in free if _fits(role, rows[name])]
    others = others or [name for name in free if role == "label" and _fits(role, rows[name], named=True)]
    if role == "label":  # words that could be languages are the last choice
        others = [name for name in others if not _fits("language", rows[name])] or others
    if role == "text":
        return max(others, key=lambda name: rows[name].str.len().mean(), default=None)
    if role == "label":  # the fewest classes, and of equals the last column, where labels usually stand
        return min(reversed(others), key=lambda name: rows[name].nunique(), default=None)
    return others[0] if others else None


def sampled(table: Table) -> Table:
    """Rows at even distances, as many as are looked at: files are often sorted by label."""
    step = max(len(table) // _SAMPLE, 1)
    return table.iloc[::step]


def could_be_text(cells: "pd.Series[str]") -> bool:
    """Whether a column holds texts."""
    return _fits("text", sampled(cells))


def _fits(role: str, cells: "pd.Series[str]", named: bool = False) -> bool:
    """Whether a column can hold this; `named` says that its name says so."""
    filled = cells[cells.str.strip() != ""]
    if filled.empty:
        return False
    values = filled.unique()
    if role == "text":
        worded = filled.map(lambda cell: bool(_WORDS.search(cell))).mean()
        return len(values) > 0.5 * len(filled) and (worded > 0.3 or (named and not filled.map(_is_plain).all()))
    if role == "label":
        most = MOST_LABELS if named else _FEW
        # a value that a single row has is a slip, or what stands below a header
        usual = len(filled) < _ENOUGH or (filled.value_counts() > 1).sum() > 1
        return bool(2 <= len(values) <= most and len(values) < 0.5 * len(filled) + 1 and usual)
    if role == "id":
        return bool(filled.is_unique) and len(filled) == len(cells)
    meaning = language_code if role == "language" else split_of
    words = {str(value).strip().casefold() for value in values}
    if words <= {*_POSITIVE.split(), *_NEGATIVE.split()}:  # `yes`, `no` and `hate` are codes or names of languages too
        return False
    # where the name says it, rows that have none are left out
    known = filled.map(lambda cell: bool(meaning(cell))).mean()
    return len(values) <= 200 and bool(known == 1 or (named and role == "language" and known >= 0.5))


def _is_plain(cell: str) -> bool:
    """Whether a cell is a number, a date or an address, which no post is."""
    return bool(re.fullmatch(r"[\d\s.,:/TZ+-]+|\w+://\S+", cell.strip()))


def says(word: str) -> int | None:
    """0 or 1 for a word that means no or yes, whatever its language; None for others."""
    plain = word.strip().casefold()
    return 1 if plain in _POSITIVE.split() else 0 if plain in _NEGATIVE.split() else None


def _says(word: str, words: str) -> bool:
    return word.strip().casefold() in words.split()


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "_", name.strip().casefold()).strip("_")
