"""Small posts for the tests of this folder: as a table, and as the files of a release."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from polar_pipeline.task.card import TaskCard, load_card

CARD: TaskCard = load_card("polar")

Row = tuple[str, str, int | None, str]  # id, text, label, split


def posts_of(rows: Sequence[Row]) -> pd.DataFrame:
    """A posts table that `check_posts` accepts."""
    ids, texts, labels, splits = zip(*rows, strict=True)
    table = pd.DataFrame({"id": pd.array(ids, dtype="str"), "text": pd.array(texts, dtype="str")})
    table["label"] = pd.array(labels, dtype="Int8")
    table["split"] = pd.array(splits, dtype="str")
    table["fold"] = pd.array([-1] * len(rows), dtype="Int8")
    table["source"] = pd.array(["real"] * len(rows), dtype="str")
    table["parent_id"] = pd.array([None] * len(rows), dtype="str")
    for name in CARD.auxiliary.columns:
        table[name] = pd.array([None] * len(rows), dtype="Int8")
    return table


def write_csv(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    """A file as csv.writer makes it; the first row is the header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as handle:
        csv.writer(handle).writerows(rows)
    return path


def write_release(folder: Path, **files: Sequence[Sequence[str]]) -> Path:
    """train/eng.csv, dev/eng.csv and test/eng.csv; those that are not given hold one plain post."""
    plain: dict[str, Sequence[Sequence[str]]] = {
        split: [("id", "text", "polarization"), (f"eng_{split}", f"A {split} post", "" if split == "test" else "0")]
        for split in ("train", "dev", "test")
    }
    for split, rows in (plain | files).items():
        write_csv(folder / split / "eng.csv", rows)
    return folder
