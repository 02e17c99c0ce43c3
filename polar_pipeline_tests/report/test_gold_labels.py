"""The one place where labels of test are read."""

from pathlib import Path

import pandas as pd
import pytest

from polar_pipeline.errors import InputError
from polar_pipeline.report.evidence import read_test_labels
from polar_pipeline_tests.corpus.tables import CARD, write_release


def labels(folder: Path, *cells: str, column: str = "polarization") -> pd.DataFrame | None:
    rows = [("id", "text", column), *((f"eng_{row}", "a", cell) for row, cell in enumerate(cells))]
    return read_test_labels(write_release(folder, test=rows), "eng", CARD)


def test_labels_by_id(tmp_path: Path) -> None:
    read = labels(tmp_path, "1", "0.0", "")
    assert read is not None
    assert read.index.tolist() == ["eng_0", "eng_1", "eng_2"]
    assert list(read) == ["label"] and str(read["label"].dtype) == "Int8"
    assert read["label"].tolist() == [1, 0, pd.NA]


def test_no_label_at_all_is_none(tmp_path: Path) -> None:
    assert labels(tmp_path, "", " ") is None
    assert labels(tmp_path, "1", column="other_column") is None


def test_a_wrong_label_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"test/eng\.csv: row 2 \(line 3\): column `polarization` is '7'"):
        labels(tmp_path, "1", "7")
