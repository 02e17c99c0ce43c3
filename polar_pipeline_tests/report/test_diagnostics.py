"""The sceptic's figures, recomputed with scikit-learn and scipy."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp
from sklearn.metrics import f1_score

from polar_pipeline.report.evidence import dev_tuned, mistakes, review, score_distance


def decided(posts: int = 400, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 2, posts)
    probability = 1 / (1 + np.exp(-(2.0 * label - 1 + generator.normal(size=posts))))
    frame = pd.DataFrame({"id": [f"x_{i:03}" for i in range(posts)], "label": label, "probability": probability})
    frame = frame.assign(split=np.where(np.arange(posts) < 60, "dev", "train"), text="post " + frame["id"])
    frame = frame.assign(prediction=(probability >= 0.5).astype(int), margin=(frame["probability"] - 0.5).abs())
    return frame.assign(nested=frame["prediction"], review=frame["margin"] < 0.1)


def test_distance_is_scipys_and_absent_without_test() -> None:
    one, other = np.random.default_rng(0).random(50), np.random.default_rng(1).random(80) / 2
    assert score_distance(one, other) == pytest.approx(ks_2samp(one, other).statistic)
    assert score_distance(one, one) == 0
    assert score_distance(one, np.zeros(0)) is None


def test_tuning_on_dev_never_loses_there_and_is_judged_elsewhere() -> None:
    table = decided()
    dev, rest = table[table["split"] == "dev"], table[table["split"] != "dev"]
    found = dev_tuned(table, dev)
    assert found is not None and found.gain_on_dev >= 0
    expected = f1_score(rest["label"], rest["probability"] >= found.threshold, average="macro")
    assert found.gain_elsewhere == pytest.approx(expected - f1_score(rest["label"], rest["nested"], average="macro"))
    assert dev_tuned(table, dev[:0]) is None
    assert dev_tuned(dev, dev) is None


def test_review_counts_the_errors_among_marked_posts() -> None:
    table = decided()
    found = review(table)
    wrong = table["nested"] != table["label"]
    assert found.share == pytest.approx(table["review"].mean())
    assert found.share_of_errors == pytest.approx((wrong & table["review"]).sum() / wrong.sum())
    rest = table[~table["review"]]
    assert found.value_of_rest == pytest.approx(f1_score(rest["label"], rest["nested"], average="macro"))
    assert review(table.assign(nested=table["label"])).share_of_errors == 0


def test_the_surest_mistakes_of_both_kinds_come_first() -> None:
    table = decided().sample(frac=1, random_state=1)
    found = mistakes(table, 5)
    wrong = table[table["nested"] != table["label"]]
    assert [mistake.label for mistake in found] == [1, 1, 1, 0, 0]
    missed = wrong[wrong["label"] == 1]
    assert found[0].probability == missed["probability"].min()
    assert found[3].probability == wrong.loc[wrong["label"] == 0, "probability"].max()
    assert mistakes(table, 0) == () and mistakes(table.assign(nested=table["label"]), 5) == ()
    assert len(mistakes(table.assign(text="x" * 5000), 1)[0].text) == 280
