"""What files of posts and the posts table should contain, and one sentence about the first row that is wrong."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd

from polar_pipeline.corpus.columns import Roles
from polar_pipeline.corpus.release import SPLITS
from polar_pipeline.corpus.text import is_blank
from polar_pipeline.errors import InputError
from polar_pipeline.tables.rows import and_more
from polar_pipeline.task.card import MAIN_HEAD, TaskCard

if TYPE_CHECKING:
    import pandera.pandas as pa

_VALUE_WIDTH = 60  # characters of a value in a message
_SHOWN = 12  # classes in a message


def file_schema(roles: Roles, language: str, card: TaskCard, labels: bool, required: bool) -> "pa.DataFrameSchema":
    """What the rows of a language should contain, all columns as texts; further columns are ignored.

    `labels`: label columns are checked; `required`: each post needs its label. Auxiliary ones may be empty or absent.
    """
    import pandera.pandas as pa

    begin = card.id_begins.format(language=language)
    words = "0 or 1" if not card.label.words else f"one of {', '.join([*card.label.words, '0', '1'])}"
    decided = f"one of {some(card.targets)}" if card.kind == "multiclass" else words
    known, is_code = _known(card.classes or card.label.codes, decided), _known(card.label.codes, words)
    given = pa.Check(
        lambda cells: cells.str.strip() != "", error=f"which should be {decided}: label the post or remove it"
    )
    own = pa.Check(
        lambda ids: ids.str.startswith(begin) & (ids.str.len() > len(begin)),
        error=f"which should start with `{begin}` and go on: correct the id, or move the post to its language's file",
    )
    once = pa.Check(
        lambda ids: ~ids.duplicated(), error="which an earlier row has too: give each post an id of its own"
    )
    columns = {roles.text: pa.Column(str, _not_blank())}
    if roles.id is not None:
        columns[roles.id] = pa.Column(str, [own, once])
    if labels:
        one = not card.label_columns or (card.label.separator and not roles.labels)
        wanted = {MAIN_HEAD: card.label.column} if one else card.label_columns
        there = roles.labels or ({MAIN_HEAD: roles.label} if roles.label else {})
        for name, column in wanted.items():
            if required or name in there:
                checks = [known, given] if required else known
                columns[there.get(name, column)] = pa.Column(str, checks, required=required)
        columns |= {column: pa.Column(str, is_code) for column in roles.auxiliary.values()}
    return pa.DataFrameSchema(columns)


def _known(codes: dict[str, int], words: str) -> "pa.Check":
    """That cells are empty or words of these codes."""
    import pandera.pandas as pa

    return pa.Check(lambda cells: plain_cells(cells).isin({"", *codes}), error=f"which should be {words}: correct it")


def some(names: tuple[str, ...]) -> str:
    """Names of classes or labels in a message."""
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def table_schema(card: TaskCard) -> "pa.DataFrameSchema":
    """What the posts table should contain; later stages may add columns."""
    import pandera.pandas as pa

    label = pa.Column("Int8", pa.Check.isin([0, 1], error="which should be 0 or 1"), nullable=True)
    most = len(card.labels) - 1 if card.kind == "multiclass" else 1
    decided = pa.Check.isin(
        range(most + 1), error="which should be 0 or 1" if most == 1 else f"which should be 0 to {most}"
    )
    finer = [*card.label_columns, *card.auxiliary.columns]
    columns = {
        "id": pa.Column(str),
        "text": pa.Column(str, _not_blank()),
        "label": pa.Column("Int8", decided, nullable=True),
        "split": pa.Column(str, pa.Check.isin(SPLITS, error=f"which should be one of {', '.join(SPLITS)}")),
        "fold": pa.Column("Int8", pa.Check.ge(-1, error="which should be -1 or the number of a fold")),
        "source": pa.Column(str),
        "parent_id": pa.Column(str, nullable=True),
        **dict.fromkeys(finer, label),
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
            lambda posts: posts["split"].ne("test") | posts[["label", *finer]].isna().all(axis=1),
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


def plain_cells(cells: "pd.Series[str]") -> "pd.Series[str]":
    """Cells as words of labels are compared: without spaces around them, in small letters."""
    return cells.str.strip().str.casefold()


def shown(value: object) -> str:
    """A value in a message."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _VALUE_WIDTH else f"{text[:_VALUE_WIDTH]}..."


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
    return f"{place(row)}: column `{column}` is {shown(value)}, {check}"
