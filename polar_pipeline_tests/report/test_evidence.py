"""The evidence is what scikit-learn says of the same rows, and says nothing where there are no labels."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Curve
from polar_pipeline.report.evidence import CURVE_POINTS, thin
from polar_pipeline_tests.report.made import evidence, measured, tables


def test_dev_and_test_are_sklearns() -> None:
    posts, predictions, decision = tables("deu")
    test = predictions[predictions["split"] == "test"]
    truth = pd.Series(np.arange(len(test)) % 2, index=test["id"], dtype="Int8")
    truth.iloc[:10] = pd.NA
    found = measured(posts, predictions, decision, truth)
    dev = posts["split"] == "dev"
    expected = f1_score(posts["label"][dev].astype(int), predictions["prediction"][dev], average="macro")
    assert found.dev is not None and found.dev.value == pytest.approx(expected)
    known = f1_score(truth.iloc[10:].astype(int), test["prediction"].iloc[10:], average="macro")
    assert found.test is not None and (found.test.value, found.test.posts) == (pytest.approx(known), 50)
    assert found.test.low < found.test.value < found.test.high
    assert found.first.predicted_positives == pytest.approx(test["prediction"].mean())
    assert found.posts == {"train": 200, "dev": 20, "test": 60}
    audit = found.audit
    shown = audit.cross_split_dev, audit.cross_split_test, audit.conflicting_groups, audit.shift_auc
    assert shown == (1, 2, 3, 0.7)


def test_predictions_of_other_posts_are_refused() -> None:
    posts, predictions, decision = tables("deu")
    for wrong in (predictions.iloc[:-1], predictions.assign(id=predictions["id"] + "x")):
        with pytest.raises(InputError, match="predictions of deu are not of its posts"):
            measured(posts, wrong, decision)


def test_without_test_posts_there_is_no_predicted_share() -> None:
    posts, predictions, decision = tables("deu")
    posts, predictions = (table[table["split"] != "test"] for table in (posts, predictions))
    found = measured(posts, predictions, decision)
    assert found.first.predicted_positives is None and "test" not in found.posts


def test_the_resamples_are_of_the_nested_estimate() -> None:
    found = evidence("deu")
    low, high = np.quantile(found.resamples, [0.025, 0.975])
    assert (found.out_of_fold.low, found.out_of_fold.high) == (pytest.approx(low), pytest.approx(high))


def test_languages_are_resampled_independently() -> None:
    draws = [evidence(code).resamples for code in ("deu", "eng")]
    assert abs(np.corrcoef(draws)[0, 1]) < 0.1


def test_without_labels_there_is_no_estimate() -> None:
    posts, predictions, decision = tables("deu")
    posts["label"] = posts["label"].where(posts["split"] == "train")
    found = measured(posts, predictions, decision)
    assert found.dev is None and found.test is None


def test_thinning_keeps_both_ends_and_short_curves_whole() -> None:
    thresholds = np.concatenate([[-np.inf], np.linspace(0.1, 0.9, 5000), [np.inf]])
    short = thin(Curve(thresholds, np.linspace(0, 1, 5002)))
    assert len(short.thresholds) == CURVE_POINTS
    assert (short.thresholds[0], short.thresholds[-1], short.values[-1]) == (0.0, 1.0, 1.0)
    assert len(thin(Curve(np.array([-np.inf, 0.5, np.inf]), np.zeros(3))).thresholds) == 3
