"""The posts table: read from the files of a release, checked, and the same for every stage that follows.

Columns: `id, text` (str), `label` (Int8, missing in test), `split` (train, dev or test), `fold` (Int8, -1 until folds
are assigned), `source` (`REAL` here), `parent_id` (the real post that a synthetic one was made from; missing here) and
one Int8 column per auxiliary label of the task card. What does not belong here: labels of test (report/evidence.py).
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from polar_pipeline.corpus.release import SPLITS
from polar_pipeline.corpus.rows import CsvRows, and_more, read_rows
from polar_pipeline.corpus.text import bare, is_blank
from polar_pipeline.errors import InputError
from polar_pipeline.task.card import TaskCard

if TYPE_CHECKING:
    import pandera.pandas as pa

REAL = "real"  # the source of posts that people wrote; synthetic ones name how they were made
CANARY_COLUMN = "canary"
# shorter marks (a flag, a number) would be found in innocent texts
SHORTEST_CANARY = 8
_LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "": None}
_VALUE_WIDTH = 60  # characters of a value in a message


def read_posts(folder: Path, language: str, card: TaskCard) -> pd.DataFrame:
    """The posts of one language: train, dev and test, each in the order of its file.

    Labels of test are never read, whatever its file contains. Raises InputError that names file, row and column when a
    file is missing or wrong, and when a train or dev text contains a canary of the card or of the test file.
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
    return column.str.strip().map(_LABELS).astype("Int8")


def file_schema(language: str, card: TaskCard, labels: bool, required: bool) -> "pa.DataFrameSchema":
    """What a file of one language should contain, all columns as texts; further columns are ignored.

    `labels`: label columns are checked; `required`: each post needs its label. Auxiliary ones may be empty or absent.
    """
    import pandera.pandas as pa

    known = pa.Check(lambda cells: cells.str.strip().isin(_LABELS), error="which should be 0 or 1: correct it")
    given = pa.Check(lambda cells: cells.str.strip() != "", error="which should be 0 or 1: label the post or remove it")
    own = pa.Check(
        lambda ids: ids.str.startswith(f"{language}_") & (ids.str.len() > len(language) + 1),
        error=f"which should start with `{language}_` and go on: "
        "correct the id, or move the post to its language's file",
    )
    once = pa.Check(
        lambda ids: ~ids.duplicated(), error="which an earlier row has too: give each post an id of its own"
    )
    columns = {"id": pa.Column(str, [own, once]), "text": pa.Column(str, _not_blank())}
    if labels:
        columns[card.label.column] = pa.Column(str, [known, given] if required else known, required=required)
        columns |= {name: pa.Column(str, known, required=False) for name in card.auxiliary.columns}
    return pa.DataFrameSchema(columns)


def table_schema(card: TaskCard) -> "pa.DataFrameSchema":
    """What the posts table should contain; later stages may add columns."""
    import pandera.pandas as pa

    label = pa.Column("Int8", pa.Check.isin([0, 1], error="which should be 0 or 1"), nullable=True)
    columns = {
        "id": pa.Column(str),
        "text": pa.Column(str, _not_blank()),
        "label": label,
        "split": pa.Column(str, pa.Check.isin(SPLITS, error=f"which should be one of {', '.join(SPLITS)}")),
        "fold": pa.Column("Int8", pa.Check.ge(-1, error="which should be -1 or the number of a fold")),
        "source": pa.Column(str),
        "parent_id": pa.Column(str, nullable=True),
        **dict.fromkeys(card.auxiliary.columns, label),
    }
    rules = [
        pa.Check(
            lambda posts: ~posts.duplicated(["split", "id"]), error="its id is in an earlier row of its split too"
        ),
        pa.Check(
            lambda posts: posts["split"].eq("test") | posts["label"].notna(),
            error="it has no label, which every post outside test needs",
        ),
        pa.Check(
            lambda posts: posts["split"].ne("test") | posts[["label", *card.auxiliary.columns]].isna().all(axis=1),
            error="it is a test post with a label, and labels of test are sealed",
        ),
        pa.Check(
            lambda posts: posts["split"].ne("test") | posts["fold"].eq(-1),
            error="it is a test post in a fold, and test posts are never trained on",
        ),
    ]
    return pa.DataFrameSchema(columns, checks=rules)


def enforce(schema: "pa.DataFrameSchema", frame: pd.DataFrame, what: str, place: Callable[[int], str]) -> None:
    """Raise InputError about the first row of `frame` that breaks `schema`: `what` names the whole, `place` the row."""
    import pandera.pandas as pa

    try:
        schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as error:
        problems = _problems(error.failure_cases)
        sentence = _sentence(problems.iloc[0], what, place)
        raise InputError(f"{sentence}{and_more(len(problems) - 1)}.") from None


def _posts(rows: CsvRows, language: str, split: str, card: TaskCard) -> pd.DataFrame:
    """Check a file's rows and lay them out as a posts table."""
    unlabelled = split == "test"
    frame = rows.frame
    enforce(
        file_schema(language, card, labels=not unlabelled, required=not unlabelled), frame, str(rows.path), rows.place
    )
    posts = pd.DataFrame({"id": frame["id"], "text": frame["text"]})
    missing = pd.Series(pd.NA, index=frame.index, dtype="Int8")
    posts["label"] = missing if unlabelled else labels_of(frame[card.label.column])
    posts = posts.assign(split=split, fold=-1, source=REAL, parent_id=None)
    posts = posts.astype({"split": "str", "fold": "Int8", "source": "str", "parent_id": "str"})
    for name in card.auxiliary.columns:
        posts[name] = missing if unlabelled or name not in frame else labels_of(frame[name])
    return posts.reset_index(drop=True)


def _marks(rows: CsvRows) -> list[str]:
    """The canaries that a file declares in its own column, each once."""
    if CANARY_COLUMN not in rows.frame:
        return []
    return [mark for mark in rows.frame[CANARY_COLUMN].unique() if len(bare(mark)) >= SHORTEST_CANARY]


def _not_blank() -> "pa.Check":
    import pandera.pandas as pa

    return pa.Check(
        lambda texts: ~texts.map(is_blank).astype(bool), error="which should be a text: write one or remove the row"
    )


def _problems(cases: pd.DataFrame) -> pd.DataFrame:
    """Violations in the order of the file: whole columns first, then row by row; each once."""
    # a rule about rows that cannot be computed without a missing column is no problem of its own
    stuck = (
        cases["schema_context"].eq("DataFrameSchema") & cases["index"].isna() & cases["check"].ne("column_in_dataframe")
    )
    cases = cases[~stuck]
    whole = cases["schema_context"].eq("DataFrameSchema") & cases["index"].notna()
    # pandera repeats a rule about whole rows for every column, and an empty cell can break two rules about one cell
    cases = cases.assign(column=cases["column"].mask(whole), row=cases["index"].fillna(-1).astype(int))
    cases = cases.assign(column=cases["column"].mask(cases["check"] == "column_in_dataframe", cases["failure_case"]))
    return cases.sort_values("row", kind="stable").drop_duplicates(["row", "column"])


def _sentence(problem: "pd.Series[Any]", what: str, place: Callable[[int], str]) -> str:
    row, column, check, value = (problem[key] for key in ("row", "column", "check", "failure_case"))
    if check == "column_in_dataframe":
        return f"{what} has no column `{column}`: add it to the header"
    if row < 0:
        return f"{what}: column `{column}` is of type {value}, not as it should be: {check}"
    if pd.isna(column):
        return f"{place(row)}: {check}"
    if check == "not_nullable":
        return f"{place(row)}: column `{column}` is missing, and every row needs it"
    return f"{place(row)}: column `{column}` is {_shown(value)}, {check}"


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _VALUE_WIDTH else f"{text[:_VALUE_WIDTH]}..."
