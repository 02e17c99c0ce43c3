"""The posts table: read from the files of a release, checked, and the same for every stage that follows.

Columns: `id, text` (str), `label` (Int8, missing in test; see labels.py), `split` (train, dev or test), `fold` (Int8,
-1 until folds are assigned), `source` (`REAL` here), `parent_id` (the real post that a synthetic one was made from;
missing here), and one Int8 column per label of a multilabel task and per auxiliary label of the task card. What does
not belong here: labels of test (report/evidence.py).
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from polar_pipeline.corpus.labels import auxiliary_labels, read_labels
from polar_pipeline.corpus.parts import Part, read_parts
from polar_pipeline.corpus.release import SPLITS
from polar_pipeline.corpus.schemas import enforce, table_schema
from polar_pipeline.corpus.text import bare
from polar_pipeline.errors import InputError
from polar_pipeline.tables.rows import and_more
from polar_pipeline.task.card import TaskCard

REAL = "real"  # the source of posts that people wrote; synthetic ones name how they were made
CANARY_COLUMN = "canary"
# shorter marks (a flag, a number) would be found in innocent texts
SHORTEST_CANARY = 8
_ID_DIGITS = 16  # of an id that is made of a text
_REMEDY = "name the column of the labels as label.column of the task card"


def read_posts(data: Path, language: str, card: TaskCard, say: Callable[[str], None] | None = None) -> pd.DataFrame:
    """The posts of one language: train, dev and test, each in the order of its files. `say` is told what was guessed.

    Posts of train or dev that have no label, where no post of the file has, are to be predicted: their split is test.
    Labels of test are never read, whatever its file contains.
    Raises InputError that names file, row and column when a file is missing or wrong, and when a train or dev text
    contains a canary of the card or of the test file.
    """
    tell, parts, marks = say or (lambda _: None), list[pd.DataFrame](), list[str](card.canaries)
    for part in read_parts(data, language, card, tell):
        parts.append(_posts(part, language, card))
        marks += _marks(part.rows) if part.split == "test" else []
    found = [table for split in SPLITS for table in parts if len(table) and table["split"].iloc[0] == split]
    if not any(table["split"].iloc[0] == "train" for table in found):
        raise InputError(f"{data} holds no post of {language} with a label to train on: add some, or {_REMEDY}.")
    posts = pd.concat(found, ignore_index=True)
    posts["id"] = made_ids(posts)
    refuse_canaries(posts, card.model_copy(update={"canaries": tuple(marks)}))
    return posts


def check_posts(frame: pd.DataFrame, card: TaskCard) -> None:
    """Raise InputError if `frame` is not a posts table: columns, types, values, ids once per split, no test labels."""
    rows = frame.reset_index(drop=True)

    def place(row: int) -> str:
        return f"posts table, row {row + 1} (id {rows['id'].iloc[row]})"

    enforce(table_schema(card), rows, "posts table", place)


def refuse_canaries(posts: pd.DataFrame, card: TaskCard) -> None:
    """Raise InputError if a train or dev text contains a canary of the card, in whatever case, spacing or dashes."""
    marks = [mark for mark in map(bare, card.canaries) if mark]
    fitted = posts[posts["split"] != "test"]
    found = [
        (post_id, split)
        for post_id, split, text in zip(fitted["id"], fitted["split"], fitted["text"].map(bare), strict=True)
        if any(mark in text for mark in marks)
    ]
    if found:
        post_id, split = found[0]
        raise InputError(
            f"post {post_id} of {split} contains a canary, the mark of texts that must never be trained on: "
            f"remove the post{and_more(len(found) - 1)}."
        )


def made_ids(posts: pd.DataFrame) -> "pd.Series[str]":
    """The ids of posts (id, text, split), and for those without any one made of the text: the same in any order."""
    made = posts["text"].map(lambda text: hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS])
    again = made.groupby([made, posts["split"]]).cumcount()
    made = made.where(again == 0, made + "-" + (again + 1).astype(str))
    return posts["id"].where(posts["id"] != "", made).astype("str")


def _posts(part: Part, language: str, card: TaskCard) -> pd.DataFrame:
    """Check the rows of a split and lay them out as a posts table; ids are empty where there are none."""
    roles, rows, unlabelled = part.roles, part.rows, part.split == "test"
    part.check(language, card, labels=not unlabelled, required=not unlabelled)
    posts = part.named[["id", "text"]]
    if unlabelled:
        names = ["label", *card.label_columns, *card.auxiliary.columns]
        labels = pd.DataFrame({name: pd.Series(pd.NA, index=rows.index, dtype="Int8") for name in names})
    else:
        labels = pd.concat([read_labels(rows, roles, card), auxiliary_labels(rows, roles, card)], axis=1)
    posts["label"] = labels.pop("label")
    posts = posts.assign(split=part.split, fold=-1, source=REAL, parent_id=None)
    posts = posts.astype({"id": "str", "split": "str", "fold": "Int8", "source": "str", "parent_id": "str"})
    whole: pd.DataFrame = pd.concat([posts, labels], axis=1).reset_index(drop=True)
    return whole


def _marks(mine: pd.DataFrame) -> list[str]:
    """The canaries that a file declares in its own column, each once."""
    if CANARY_COLUMN not in mine:
        return []
    return [mark for mark in mine[CANARY_COLUMN].unique() if len(bare(mark)) >= SHORTEST_CANARY]
