"""Heads agree with scikit-learn, hold out what they say that they hold out, and learn what labels there are."""

from typing import Any

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge

from polar_pipeline.backbones.encoder.heads import (
    Head,
    Labels,
    Tensors,
    _KernelRidge,
    fit_head,
    head_logits,
    log_sum_exp,
)
from polar_pipeline.metrics.scores import Floats, Ints, auc
from polar_pipeline.settings.backbones import EncoderSettings


def settings(**changes: Any) -> EncoderSettings:
    return EncoderSettings(name="encoder", kind="encoder", model="tiny:xlm_roberta", **changes)


def made(rows: int = 120, seed: int = 0) -> tuple["np.typing.NDArray[np.float32]", Labels]:
    """Features of two types of positives, and their labels; a third type is never seen."""
    generator = np.random.default_rng(seed)
    types = (generator.random((rows, 3)) < [0.3, 0.2, 0.0]).astype(float)
    features = generator.normal(size=(rows, 6)).astype(np.float32)
    features[:, :2] += 2 * types[:, :2].astype(np.float32)
    label = types.any(axis=1).astype(int)
    return features, Labels({"label": main(label), "types": Head(label, types, finer=True)}, np.arange(rows))


def main(label: Ints) -> Head:
    """The head of the label itself."""
    return Head(label, label[:, None].astype(float))


def truth_of(labels: Labels) -> Ints:
    """The label 0/1 (rows,)."""
    return labels.heads["label"].label


def with_types(labels: Labels, types: Floats) -> Labels:
    """The same with other finer labels."""
    return labels._replace(heads={**labels.heads, "types": Head(truth_of(labels), types, finer=True)})


def plain(features: Any, label: Any, other: Any, gamma: float, penalty: float) -> Floats:
    """The same by scikit-learn, which has no offset."""
    model = KernelRidge(alpha=penalty, kernel="rbf", gamma=gamma).fit(features, label - label.mean())
    found: Floats = model.predict(other) + label.mean()
    return found


def test_kernel_ridge_is_that_of_scikit_learn() -> None:
    features, labels = made()
    solver = _KernelRidge(features, labels, settings(widths=[0.9], penalties=[0.7]))
    everything = np.ones(len(features), dtype=bool)
    weights, offsets, held_out = solver.fit(everything, truth_of(labels)[:, None].astype(float))
    kernel = np.exp(-0.9 / 6 * ((features[:, None] - features[None]) ** 2).sum(axis=2))
    expected = plain(features, truth_of(labels), features, 0.9 / 6, 0.7)
    np.testing.assert_allclose((kernel @ weights + offsets)[:, 0], expected, atol=1e-4)
    for row in (0, 7, 119):  # a left-out row keeps the offset of all
        rest = np.arange(len(features)) != row
        model = KernelRidge(alpha=0.7, kernel="rbf", gamma=0.9 / 6).fit(
            features[rest], (truth_of(labels) - offsets)[rest]
        )
        assert held_out[row, 0] == pytest.approx(model.predict(features[[row]])[0] + offsets[0], abs=1e-4)


def test_copies_are_left_out_together() -> None:
    features, labels = made(60)
    copies = np.arange(60)
    copies[[10, 20, 30]] = copies[10]
    everything, targets = np.ones(60, dtype=bool), truth_of(labels)[:, None].astype(float)
    solver = _KernelRidge(features, labels._replace(copies=copies), settings(widths=[0.9], penalties=[0.7]))
    _, offsets, held_out = solver.fit(everything, targets)
    rest = ~np.isin(np.arange(60), [10, 20, 30])
    model = KernelRidge(alpha=0.7, kernel="rbf", gamma=0.9 / 6).fit(features[rest], (truth_of(labels) - offsets)[rest])
    np.testing.assert_allclose(held_out[~rest, 0], model.predict(features[~rest]) + offsets, atol=1e-4)


def test_a_single_class_is_no_error() -> None:
    features, labels = made(50)
    for head in ("kernel", "logistic"):
        tensors = fit_head(
            features, labels._replace(heads={"label": main(np.zeros(50, dtype=int))}), settings(head=head)
        )
        assert (head_logits(tensors, features, ["label"])["label"] < 0.5).all()


@pytest.mark.parametrize("head", ["kernel", "logistic"])
def test_it_learns_the_label_and_its_types(head: str) -> None:
    features, labels = made(400)
    tensors = fit_head(features, labels, settings(head=head))
    new, truth = made(400, seed=1)
    found = head_logits(tensors, new, ["label", "types"])
    assert sorted(found) == ["label", "types"]
    assert auc(truth_of(truth), found["label"]) > 0.85 and auc(truth_of(truth), found["types"]) > 0.85
    # log-odds: about as many positives as there are
    for logits in found.values():
        assert np.mean(1 / (1 + np.exp(-logits))) == pytest.approx(truth_of(truth).mean(), abs=0.08)
    assert (tensors["group"] == [-1, 0, 0]).all()  # the type without positives is left out


@pytest.mark.parametrize("head", ["kernel", "logistic"])
def test_a_group_that_some_rows_lack_is_learned_from_the_others(head: str) -> None:
    features, labels = made(300)
    types = labels.heads["types"].learned.copy()
    types[200:] = np.nan
    part = fit_head(features, with_types(labels, types), settings(head=head))
    assert part["weights"].shape[1] == 3 and np.isfinite(part["weights"]).all()
    nobody = fit_head(features, with_types(labels, np.zeros((300, 3))), settings(head=head))
    assert sorted(head_logits(nobody, features, ["label", "types"])) == ["label"]


@pytest.mark.parametrize("head", ["kernel", "logistic"])
def test_a_row_has_the_same_log_odds_in_any_company(head: str) -> None:
    features, labels = made(700)
    tensors = fit_head(features, labels, settings(head=head))
    whole = head_logits(tensors, features, ["label", "types"])
    for rows in (slice(0, 1), slice(3, 20), slice(100, 600)):
        for name, logits in head_logits(tensors, features[rows], ["label", "types"]).items():
            np.testing.assert_array_equal(logits, whole[name][rows])


def choice(tensors: Tensors) -> float:
    return float(tensors["gamma"][0]) * 6


def test_of_several_widths_the_one_that_predicts_left_out_rows_best_is_taken() -> None:
    features, labels = made(200)
    chosen = choice(fit_head(features, labels, settings(widths=[1e-6, 0.5, 500.0])))
    assert chosen == pytest.approx(0.5)
    same = fit_head(features, labels, settings(widths=[0.5]))
    several = fit_head(features, labels, settings(widths=[1e-6, 0.5, 500.0]))
    for name, value in same.items():
        np.testing.assert_array_equal(value, several[name])


def test_features_that_are_constant_or_far_out_do_no_harm() -> None:
    features, labels = made(100)
    features[:, 3], features[0, 4] = 5.0, 1e6
    found = head_logits(fit_head(features, labels, settings()), features, ["label", "types"])
    assert all(np.isfinite(logits).all() for logits in found.values())


def test_log_sum_exp_is_the_logarithm_of_the_summed_odds() -> None:
    logits = np.array([[0.0, 0.0], [1000.0, -1000.0], [-2.0, 1.0]])
    np.testing.assert_allclose(log_sum_exp(logits), [np.log(2), 1000.0, np.log(np.exp(-2) + np.e)])
