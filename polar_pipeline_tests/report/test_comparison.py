"""Two runs are compared on the posts of both, and no verdict goes beyond its interval."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from polar_pipeline.errors import InputError
from polar_pipeline.report.comparison import compare_language, overall, verdict


def run(right: float, seed: int, posts: int = 2000) -> pd.DataFrame:
    """A run that decides this share of the posts rightly."""
    label = np.arange(posts) % 2
    flip = np.random.default_rng(seed).random(posts) > right
    ids = [f"x_{i}" for i in range(posts)]
    index = pd.MultiIndex.from_arrays([["label"] * posts, ["train"] * posts, ids], names=["target", "split", "id"])
    return pd.DataFrame({"label": label, "prediction": np.where(flip, 1 - label, label)}, index=index)


def test_figures_are_sklearns_and_a_clear_lead_is_called_so() -> None:
    first, second = run(0.7, 0), run(0.8, 1)
    found = compare_language("x", first, second)
    assert found.first == pytest.approx(f1_score(first["label"], first["prediction"], average="macro"))
    assert found.difference.value == pytest.approx(found.second - found.first)
    assert verdict(found.difference) == "B is better"
    assert verdict(compare_language("x", second, first).difference) == "A is better"


def test_equal_runs_and_equally_good_ones() -> None:
    assert verdict(compare_language("x", run(0.7, 0), run(0.7, 0)).difference) == "the same"
    assert verdict(compare_language("x", run(0.7, 0), run(0.7, 1)).difference) == "not shown to differ"


def test_only_shared_posts_count_in_whatever_order() -> None:
    first, second = run(0.7, 0), run(0.8, 1)
    shuffled = second.iloc[:1500].sample(frac=1, random_state=0)
    found = compare_language("x", first, shuffled)
    assert found.posts == 1500
    assert found.first == compare_language("x", first.iloc[:1500], second.iloc[:1500]).first


def test_the_mean_over_languages_is_surer_than_each() -> None:
    found = [compare_language(code, run(0.70, i), run(0.73, 50 + i)) for i, code in enumerate("abcdefgh")]
    mean = overall(found)
    assert mean.value == pytest.approx(np.mean([item.difference.value for item in found]))
    assert mean.high - mean.low < min(item.difference.high - item.difference.low for item in found) / 2


def test_other_posts_or_labels_are_refused() -> None:
    first = run(0.7, 0)
    with pytest.raises(InputError, match="decided no post of x in common"):
        compare_language("x", first, first.rename(index=lambda key: key + "y"))
    other = first.assign(label=first["label"].where(np.arange(len(first)) != 3, 0))
    with pytest.raises(InputError, match="1 posts of x have other labels in the second run, first 'x_3'"):
        compare_language("x", first, other)
