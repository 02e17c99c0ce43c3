"""Contrastive pairs: two posts alike but for their label. One half alone teaches nothing that a post alone would not.

What does not belong here: what is objected to in a post.
"""

import numpy as np
import pandas as pd

from polar_pipeline.metrics.scores import Ints

CONTRAST = "contrast"


def pair_numbers(table: pd.DataFrame) -> Ints:
    """The number of each row's pair, -1 for rows of none. Halves have one `parent_id`."""
    parents = table["parent_id"].fillna("").astype(str)
    paired = ((table["source"] == CONTRAST) & (parents != "")).to_numpy(dtype=bool)
    numbers = np.full(len(table), -1, dtype=np.int64)
    numbers[paired] = pd.factorize(parents[paired])[0]
    return numbers


def side_by_side(rows: Ints, pairs: Ints) -> Ints:
    """Rows in their order, but the second half of a pair right after the first."""
    numbers = pairs[rows]
    places = np.arange(len(rows))
    first = pd.Series(places).groupby(np.where(numbers >= 0, numbers, -1 - places)).transform("min").to_numpy()
    return rows[np.lexsort((places, first))]


def widowed(pairs: Ints, keep: "np.ndarray[tuple[int], np.dtype[np.bool_]]") -> Ints:
    """Rows that are kept though the other half of their pair is not."""
    fallen = np.unique(pairs[~keep & (pairs >= 0)])
    return np.flatnonzero(keep & np.isin(pairs, fallen))


def same_text(pairs: Ints, keys: list[str]) -> Ints:
    """Rows of pairs whose halves have one text: it cannot have both labels."""
    halves = pd.DataFrame({"pair": pairs, "key": keys})
    return np.flatnonzero((halves["pair"] >= 0) & halves["key"].ne("") & halves.duplicated(keep=False))
