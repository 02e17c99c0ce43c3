"""The posts table: read from the files of a release, checked, and the same for every stage that follows.

Columns: `id, text` (str), `label` (Int8, missing in test), `split` (train, dev or test), `fold` (Int8, -1 for none),
`source` (`REAL` here), `parent_id` (the real post that a synthetic one was made from; missing here) and one Int8 column
per auxiliary label of the task card. Labels of test: report/evidence.py.
"""

from pathlib import Path

import pandas as pd

from polar_pipeline.corpus.release import SPLITS
from polar_pipeline.corpus.rows import Rows, and_more, read_rows
from polar_pipeline.corpus.schema import LABELS, enforce, file_schema, table_schema
from polar_pipeline.corpus.text import bare
from polar_pipeline.errors import InputError
from polar_pipeline.task.card import TaskCard

REAL = "real"  # the source of posts that people wrote; synthetic ones name how they were made
CANARY_COLUMN = "canary"
# shorter marks (a flag, a number) would be found in innocent texts
SHORTEST_CANARY = 8


def read_posts(folder: Path, language: str, card: TaskCard) -> pd.DataFrame:
    """The posts of one language: train, dev and test, each in the order of its file. Labels of test are never read.

    Raises InputError that names file, row and column when a file is missing or wrong, and when a train or dev text
    contains a canary of the card or of the test file.
    """
    files = {split: read_rows(folder / split / f"{language}.csv") for split in SPLITS}
    posts = pd.concat([_posts(rows, language, split, card) for split, rows in files.items()], ignore_index=True)
    refuse_canaries(posts, card.model_copy(update={"canaries": (*card.canaries, *_marks(files["test"]))}))
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


def labels_of(column: "pd.Series[str]") -> "pd.Series[int]":
    """0/1 labels of checked cells; an empty cell is missing."""
    return column.str.strip().map(LABELS).astype("Int8")


def _posts(rows: Rows, language: str, split: str, card: TaskCard) -> pd.DataFrame:
    """Check a file's rows and lay them out as a posts table."""
    sealed = split == "test"
    frame = rows.frame
    enforce(file_schema(language, card, labels=not sealed, required=not sealed), frame, str(rows.path), rows.place)
    posts = pd.DataFrame({"id": frame["id"], "text": frame["text"]})
    missing = pd.Series(pd.NA, index=frame.index, dtype="Int8")
    posts["label"] = missing if sealed else labels_of(frame[card.label.column])
    posts["split"] = pd.Series(split, index=frame.index, dtype="str")
    posts["fold"] = pd.Series(-1, index=frame.index, dtype="Int8")
    posts["source"] = pd.Series(REAL, index=frame.index, dtype="str")
    posts["parent_id"] = pd.Series(None, index=frame.index, dtype="str")
    for name in card.auxiliary.columns:
        posts[name] = missing if sealed or name not in frame else labels_of(frame[name])
    return posts.reset_index(drop=True)


def _marks(rows: Rows) -> list[str]:
    """The canaries that a file declares in its own column, each once."""
    if CANARY_COLUMN not in rows.frame:
        return []
    return [mark for mark in rows.frame[CANARY_COLUMN].unique() if len(bare(mark)) >= SHORTEST_CANARY]
