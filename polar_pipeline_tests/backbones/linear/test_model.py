"""The model: its weights by hand, what it learns, and that nothing reaches it but its training rows."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from polar_pipeline.backbones.linear.backbone import ngram_kinds
from polar_pipeline.backbones.linear.features import count, ngrams, surface_features
from polar_pipeline.backbones.linear.model import Features, expand, fit, fit_scaling, logits, ngram_scale, weigh
from polar_pipeline.settings.backbones import LinearSettings

KINDS = list(ngram_kinds(LinearSettings()))
SHARES, SURFACE, REGULARISATION = (0.8, 1.0, 1.0), 0.03, 0.5
TEXTS = [
    f"{'they are all the same' if i % 2 else 'what a lovely day'} number{i % 7} and word{i % 5}" for i in range(80)
]
LABELS = np.array([i % 2 for i in range(80)])


def features(texts: list[str]) -> Features:
    return Features(tuple(count(*ngrams(texts, kind), len(texts))[0] for kind in KINDS), surface_features(texts))


def test_the_scale_is_the_documented_formula() -> None:
    counts = count(*ngrams(["a b", "a b", "a c", "c"], KINDS[0]), 4, at_least=1)[0]
    labels = np.array([1, 1, 0, 0])
    documents = np.asarray((counts > 0).sum(axis=0)).ravel()
    positive = np.asarray((counts[:2] > 0).sum(axis=0)).ravel()
    known = documents >= 2
    p, q = positive + 1, documents - positive + 1
    ratio = np.log(p / p[known].sum()) - np.log(q / q[known].sum())
    expected = np.sqrt(np.abs(ratio)) * (np.log(5 / (1 + documents)) + 1) * known
    np.testing.assert_allclose(ngram_scale(counts, labels), expected, rtol=1e-6)


def test_rows_have_the_length_that_was_asked_for_or_none() -> None:
    counts = features(TEXTS).counts[1]
    weighted = weigh(counts, np.ones(counts.shape[1], dtype=np.float32), 0.5)
    np.testing.assert_allclose(np.sqrt(weighted.multiply(weighted).sum(axis=1)), 0.5, rtol=1e-5)
    assert weigh(counts, np.zeros(counts.shape[1], dtype=np.float32), 0.5).sum() == 0


def test_it_learns_and_gives_log_odds() -> None:
    known = features(TEXTS)
    model = fit(known, LABELS, SHARES, SURFACE, REGULARISATION)
    scores = logits(model, known, SHARES, SURFACE)
    assert roc_auc_score(LABELS, scores) == 1.0
    assert (scores[LABELS == 1] > 0).all() and (scores[LABELS == 0] < 0).all()


def test_a_model_depends_on_its_training_rows_alone() -> None:
    """Other texts and labels in the held-out rows give the same model, n-gram by n-gram and bit by bit."""
    train = np.arange(80) < 60
    replaced = [
        text if keep else f"unseen text {i} they are" for i, (text, keep) in enumerate(zip(TEXTS, train, strict=True))
    ]
    first, second = (features(texts).rows(train) for texts in (TEXTS, replaced))
    one, two = (fit(each, LABELS[train], SHARES, SURFACE, REGULARISATION) for each in (first, second))
    assert one.intercept == pytest.approx(two.intercept, rel=1e-9)
    for scale, other in zip(one.scales, two.scales, strict=True):
        np.testing.assert_array_equal(np.sort(scale[scale > 0]), np.sort(other[other > 0]))
    for value, other in zip(one.scaling, two.scaling, strict=True):
        np.testing.assert_array_equal(value, other)
    used = [np.sort(model.weights[np.flatnonzero(model.weights)]) for model in (one, two)]
    assert len(used[0]) == len(used[1])
    np.testing.assert_allclose(used[0], used[1], atol=1e-5)


def test_n_grams_of_one_training_row_are_not_used() -> None:
    known = features(TEXTS)
    few = known.rows(np.arange(3))
    model = fit(few, LABELS[:3], SHARES, SURFACE, REGULARISATION)
    for counts, scale in zip(few.counts, model.scales, strict=True):
        documents = np.bincount(counts.indices, minlength=counts.shape[1])
        assert (scale[documents < 2] == 0).all()


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
