"""Surface features: by hand, and standardised by the training rows alone."""

import numpy as np
import pytest

from polar_pipeline.backbones.linear.surface import expand, fit_scaling, surface_features


def test_known_values() -> None:
    short, loud = surface_features(["hi", "HEY YOU!!! http://x"])
    assert short[0] == pytest.approx(np.log(3)) and loud[0] == pytest.approx(np.log(20))
    assert short[1] == pytest.approx(np.log(2)) and loud[1] == pytest.approx(np.log(4))
    assert loud[3] == pytest.approx(6 / 20)  # capitals among the characters
    assert (short[-2], loud[-2]) == (0, 1)  # a link
    assert (short[-1], loud[-1]) == (0, 1)  # begins with a capital


def test_a_row_depends_on_its_own_text_alone() -> None:
    texts = ["One, two.", "", "THREE 🙂"]
    together = surface_features(texts)
    for row, text in zip(together, texts, strict=True):
        np.testing.assert_array_equal(surface_features([text])[0], row)


def test_training_rows_are_standardised_and_odd_rows_are_clipped() -> None:
    raw = surface_features([f"{'word ' * (i % 7 + 1)}{'!' * (i % 5)}{'A' * (i % 3)}" for i in range(200)])
    scaling = fit_scaling(raw)
    expanded = expand(raw, scaling)
    useful = (scaling.spread > 1e-6).sum()
    columns = expanded[:, : raw.shape[1]] * np.sqrt(useful)
    np.testing.assert_allclose(columns[:, scaling.spread > 1e-6].mean(axis=0), 0, atol=0.2)
    assert (columns[:, scaling.spread <= 1e-6] == 0).all()
    assert np.abs(expand(raw * 1e6, scaling)[:, : raw.shape[1]] * np.sqrt(useful)).max() <= 3 + 1e-4
    assert np.isfinite(expand(raw[:1], fit_scaling(raw[:1]))).all()
