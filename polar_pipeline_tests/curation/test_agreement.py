"""Agreement is scikit-learn's, on the posts that both have said something of, those that the judge dropped included."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score

from polar_pipeline.curation.agreement import agreements, judge_figures

ROWS = st.tuples(
    st.booleans(),
    st.integers(0, 1),
    st.one_of(st.none(), st.floats(0, 1)),
    st.one_of(st.none(), st.integers(0, 1)),
    st.booleans(),
)


def table(rows: list[tuple[bool, int, float | None, int | None, bool]]) -> pd.DataFrame:
    real, label, judge, backbone, keep = map(list, zip(*rows, strict=True))
    return pd.DataFrame(
        {
            "source": ["real" if one else "direct" for one in real],
            "label": pd.array(label, dtype="Int8"),
            "fold": 0,
            "judge_probability": np.array(judge, dtype=float),
            "backbone_label": pd.array(backbone, dtype="Int8"),
            "keep": keep,
        }
    )


@given(st.lists(ROWS, min_size=1, max_size=40))
def test_all_pairs_are_compared_as_scikit_learn_does(
    rows: list[tuple[bool, int, float | None, int | None, bool]],
) -> None:
    found = {one[:3]: one for one in agreements(table(rows))}
    for real, side, name in ((False, "synthetic", "plan"), (True, "real", "label")):
        mine = [row for row in rows if row[0] == real]
        said = {
            name: [row[1] for row in mine],
            "judge": [None if row[2] is None else int(row[2] >= 0.5) for row in mine],
            "backbone": [row[3] for row in mine],
        }
        for one, other in ((name, "judge"), (name, "backbone"), ("judge", "backbone")):
            both = [pair for pair in zip(said[one], said[other], strict=True) if None not in pair]
            assert ((side, one, other) in found) == bool(both)
            if both:
                first, second = zip(*both, strict=True)
                result = found[side, one, other]
                assert result.common == len(both) and result.share == pytest.approx(accuracy_score(first, second))
                if len({*first, *second}) == 1:
                    assert result.kappa is None
                else:
                    assert result.kappa == pytest.approx(cohen_kappa_score(first, second))


def test_figures_of_the_judge_are_of_planned_labels_and_say_how_many_got_a_number() -> None:
    rows = [(False, 1, 0.9, None, True), (False, 0, 0.2, None, True), (False, 0, 0.7, None, False)]
    rows += [(False, 1, None, None, True), (True, 0, 1.0, None, True)]
    figures = judge_figures(table(rows), judged=4)
    assert figures == pytest.approx(
        {"judge_answered": 0.75, "judge_probability": (0.9 + 0.8 + 0.3) / 3, "judge_agreement": 2 / 3}
    )
    assert judge_figures(table(rows), judged=0) == {}
    assert judge_figures(table(rows[3:]), judged=1) == {"judge_answered": 0.0}
