"""The labels of test, for the report and the export alone.

No other module reads them, so nothing that trains, tunes or decides can see them. `corpus.posts` reads all other data.
"""

from pathlib import Path

import pandas as pd

from polar_pipeline.corpus.posts import labels_of
from polar_pipeline.corpus.rows import read_rows
from polar_pipeline.corpus.schema import enforce, file_schema
from polar_pipeline.task.card import TaskCard


def read_test_labels(folder: Path, language: str, card: TaskCard) -> "pd.Series[int] | None":
    """Labels of one language's test posts (Int8, indexed by id, file order), or None when the file has none.

    Posts without a label are missing values. Raises InputError that names file, row and column when the file is wrong.
    """
    rows = read_rows(folder / "test" / f"{language}.csv")
    enforce(file_schema(language, card, labels=True, required=False), rows.frame, str(rows.path), rows.place)
    if card.label.column not in rows.frame:
        return None
    labels = labels_of(rows.frame[card.label.column]).set_axis(pd.Index(rows.frame["id"], name="id"))
    labels = labels.rename("label")
    return None if labels.isna().all() else labels
