"""The task card and the profile that `polar init` writes, as YAML with comments."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from polar_pipeline.commands.init_labels import Labels
from polar_pipeline.corpus.guess import Guess
from polar_pipeline.settings.files import FileFormat
from polar_pipeline.settings.profile import load_profile
from polar_pipeline.tables.table_file import AUTO

_FOLDS = 5


@dataclass(frozen=True)
class Understood:
    """What a file holds."""

    data: Path
    columns: Guess
    rows: int
    codes: list[str]
    labels: Labels
    notes: list[str]  # in words, what is odd or was guessed
    form: FileFormat = AUTO  # as it was given


def card_yaml(found: Understood, name: str) -> str:
    """The task card as YAML."""
    columns = found.columns
    optional = {"id": columns.id or "", "language": columns.language, "split": columns.split}
    lines = [
        "# What the posts and their labels mean. docs/data.md explains every key.",
        f"name: {re.sub('[^a-z0-9_]+', '_', name)}",
        f"title: {_quoted(name)}",
        f"languages: [{', '.join(map(_quoted, found.codes))}]",  # nor and yes are other things in YAML
        "",
        "# Which columns hold what. Without a column of ids they are made from the texts.",
        "columns:",
        f"  text: {_quoted(str(columns.text))}",
        *(f"  {role}: {_quoted(column)}" for role, column in optional.items() if column is not None),
        "",
        *_LABELS[found.labels.kind](found),
        "",
        "# Rows that cannot be read or have no text are left out and counted; false: the first one is an error.",
        "files:",
        "  skip_bad: true",
        *([f"  delimiter: {_quoted(found.form.delimiter)}"] if found.form.delimiter else []),
        *([f"  encoding: {_quoted(found.form.encoding)}"] if found.form.encoding else []),
    ]
    return "\n".join(lines) + "\n"


def _binary(found: Understood) -> list[str]:
    positive = [word for word, code in found.labels.words.items() if code]
    negative = [word for word, code in found.labels.words.items() if not code]
    return [
        "label:",
        f"  column: {_quoted(str(found.labels.column))}",
        f"  negative: {_quoted(_plain_name(' or '.join(negative), 'not ' + positive[0]))}",
        f"  positive: {_quoted(_plain_name(positive[0], 'positive'))}",
        "  # What a post must be to be positive: reports show it, and synthetic posts are written from it.",
        f"  definition: {_quoted(f'A post is positive when it is labelled {positive[0]}.')}",
        "  # What stands in the files, and whether it means 0 or 1.",
        "  words:",
        *(f"    {_quoted(word)}: {code}" for word, code in found.labels.words.items()),
        *_missing(found),
    ]


def _missing(found: Understood) -> list[str]:
    """What stands for no label, as a key of `label`."""
    words = found.labels.missing
    return ["  # What stands for no label.", f"  missing: [{', '.join(map(_quoted, words))}]"] if words else []


def _multiclass(found: Understood) -> list[str]:
    return [
        "# Each post has one of several classes. macro-F1 is the mean of their F1; accuracy is the other metric.",
        "kind: multiclass",
        "metric: macro-F1",
        "label:",
        f"  column: {_quoted(str(found.labels.column))}",
        *_missing(found),
        "# The classes as reports show them; `words: [...]` beside a name says what else stands for it in files.",
        "labels:",
        *(f"  - name: {_quoted(word)}" for word in found.labels.counts),
    ]


def _multilabel(found: Understood) -> list[str]:
    labels, lines = found.labels, list[str]()
    if labels.separator:
        lines = [
            "label:",
            f"  column: {_quoted(str(labels.column))}",
            "  # What separates the names in a cell; lists in brackets are read too.",
            f"  separator: {_quoted(labels.separator)}",
        ]
    elif labels.words:
        meant = ", ".join(f"{_quoted(word)}: {code}" for word, code in labels.words.items())
        lines = ["label:", "  # What stands in the files beside 0 and 1.", f"  words: {{{meant}}}"]
    return [
        "# Each post has any number of several labels"
        f"{', whose names stand in one column' if labels.separator else ', a column of 0 and 1 each'}.",
        "# macro-F1 is the mean over the labels of the F1 of their positives; accuracy is the other metric.",
        "kind: multilabel",
        "metric: macro-F1",
        *lines,
        "labels:",
        *(f"  - name: {_quoted(name)}" for name in found.labels.counts),
    ]


_LABELS = {"binary": _binary, "multiclass": _multiclass, "multilabel": _multilabel}


def profile_yaml(found: Understood, card: Path, folder: Path, backbones: str = "") -> str:
    """The profile as YAML; `backbones` names a profile whose backbones it has, in place of the linear one."""
    data = found.data.resolve()
    near = data.relative_to(folder.resolve()) if data.is_relative_to(folder.resolve()) else data
    fewest = found.rows if found.labels.kind == "multilabel" else min(found.labels.counts.values())
    folds = max(2, min(_FOLDS, fewest // 2))
    few = "More would leave too few posts of a class in each." if folds < _FOLDS else ""
    lines = [
        "# How the posts are judged. `polar profile show` with this file prints every setting.",
        f"task: {card.name}",
        f"data: {_quoted(str(near))}",
        "",
        f"# Each post is scored by a model that never saw it, in turns. {few}".rstrip(),
        "folds:",
        f"  count: {folds}",
        "",
        *(_backbones_of(backbones) if backbones else _LINEAR),
    ]
    return "\n".join(lines) + "\n"


_LINEAR = [
    "# n-grams need no download. A pretrained encoder beside them is better by 0.02 macro-F1 on 22 languages: see",
    "# `polar profile show laptop`.",
    "backbones:",
    "  - name: linear",
    "    kind: linear",
]


def _backbones_of(profile: str) -> list[str]:
    """The section of another profile, as JSON, which YAML can read."""
    chosen = load_profile(profile).model_dump(mode="json", include={"backbones"})["backbones"]
    return [f"# Those of profile {profile}.", f"backbones: {json.dumps(chosen, ensure_ascii=False)}"]


def _plain_name(word: str, instead: str) -> str:
    """A word that says something to a reader, in place of 0, 1, true."""
    return instead if len(word) < 3 or word.lower() in ("true", "false", "yes", "no", "0.0", "1.0") else word


def _quoted(text: str) -> str:
    """A text as YAML in double quotes, which JSON's are."""
    return json.dumps(text, ensure_ascii=False)
