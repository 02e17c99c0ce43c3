"""Greedy, keep first, exact: the same rows stay as in a plain double loop, in any block size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polar_pipeline.curation import dedup
from polar_pipeline.curation.dedup import duplicates
from polar_pipeline.metrics.scores import Floats


def vectors(rows: int, dimensions: int = 8, seed: int = 0) -> Floats:
    """Unit vectors of which many are near an earlier one."""
    generator = np.random.default_rng(seed)
    found = generator.normal(size=(rows, dimensions))
    for row in range(1, rows):
        if generator.random() < 0.5:
            found[row] = found[generator.integers(row)] + 0.3 * generator.normal(size=dimensions)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def plainly(values: Floats, threshold: float, protected: int) -> list[int]:
    kept: list[int] = []
    for row in range(len(values)):
        if row < protected or not any(values[row] @ values[other] >= threshold for other in kept):
            kept.append(row)
    return kept


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(0, 30), st.integers(0, 1000), st.sampled_from([1, 3, 512]))
def test_the_rows_that_stay_are_those_of_the_double_loop(rows: int, protected: int, seed: int, block: int) -> None:
    values = vectors(rows, seed=seed)
    protected = min(protected, rows)
    before, dedup._BLOCK = dedup._BLOCK, block
    try:
        found = duplicates([f"t{row}" for row in range(rows)], values, 0.9, protected)
    finally:
        dedup._BLOCK = before
    assert np.flatnonzero(found.like < 0).tolist() == plainly(values, 0.9, protected)
    for row in np.flatnonzero(found.like >= 0):
        assert found.like[found.like[row]] < 0 and found.like[row] < row
        assert found.similarity[row] == pytest.approx(values[row] @ values[found.like[row]], abs=1e-5)


def test_equal_texts_go_whatever_their_vectors_and_empty_ones_are_like_nothing() -> None:
    values = np.eye(5, dtype=np.float32)
    found = duplicates(["a", "b", "a", "", ""], values, 0.9)
    assert found.like.tolist() == [-1, -1, 0, -1, -1] and found.similarity[2] == 1


def test_protected_rows_stay_though_they_are_alike() -> None:
    values = np.ones((4, 2), dtype=np.float32) / np.float32(np.sqrt(2))
    assert duplicates(["a", "a", "c", "d"], values, 0.9, protected=2).like.tolist() == [-1, -1, 0, 0]


def test_an_equal_text_points_at_the_row_that_stays() -> None:
    values = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    assert duplicates(["first", "same", "same"], values, 0.9).like.tolist() == [-1, 0, 0]


def test_no_rows() -> None:
    assert len(duplicates([], np.zeros((0, 3), dtype=np.float32), 0.9).like) == 0
