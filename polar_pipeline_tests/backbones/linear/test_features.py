"""Counts are scikit-learn's, n-gram for n-gram, on any text; surface features are those computed by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.backbones.linear.backbone import ngram_kinds
from polar_pipeline.backbones.linear.features import (
    NgramKind,
    count,
    count_known,
    layout,
    ngrams,
    surface_features,
    words,
)
from polar_pipeline.settings.backbones import LinearSettings
from polar_pipeline_tests.backbones.linear.peers import squeeze, tokenize, vectorizer

KINDS = list(ngram_kinds(LinearSettings()))
OTHER = list(ngram_kinds(LinearSettings(words=(2, 3), characters_in_words=(3, 3), cased_characters=(2, 7))))
TEXTS = [
    "Das ist gut, das ist SEHR gut!",
    "a",
    "नमस्ते दुनिया 🙂 क्षमा",
    "你好,世界",
    "tab\tand\nline  break",
    "@USER http://x.y #tag",
]
# what posts are made of, line breaks and marks included; lone combining marks and odd spaces too
POSTS = st.lists(
    st.text(alphabet="aAbß ñ\n\t\u0301\u0915\u093f\u094d.!#🙂好\u200d", max_size=25), min_size=1, max_size=8
)


def columns_as_multiset(matrix: np.ndarray) -> list[tuple[int, ...]]:
    return sorted(tuple(int(value) for value in column) for column in matrix.T)


def assert_same_counts(texts: list[str], kind: NgramKind, at_least: int) -> None:
    ours, keys = count(*ngrams(texts, kind), len(texts), at_least)
    assert (np.diff(keys.astype(object)) > 0).all()
    prepared = [squeeze(text) for text in texts] if kind.name == "char" else texts
    try:
        theirs = vectorizer(kind, at_least).fit_transform(prepared).toarray()
    except ValueError:  # scikit-learn refuses an empty vocabulary
        theirs = np.zeros((len(texts), 0))
    assert columns_as_multiset(ours.toarray()) == columns_as_multiset(theirs)


@pytest.mark.parametrize("kind", KINDS + OTHER, ids=lambda kind: f"{kind.name}-{kind.shortest}-{kind.longest}")
@pytest.mark.parametrize("at_least", [1, 2])
def test_counts_are_sklearns(kind: NgramKind, at_least: int) -> None:
    assert_same_counts(TEXTS + TEXTS[:2], kind, at_least)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
@given(texts=POSTS)
def test_counts_are_sklearns_on_any_text(kind: NgramKind, texts: list[str]) -> None:
    assert_same_counts(texts, kind, 1)


@given(texts=POSTS)
def test_words_are_words_marks_included(texts: list[str]) -> None:
    units = words(layout(texts))
    assert np.bincount(units.row, minlength=len(texts)).tolist() == [len(tokenize(text)) for text in texts]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_new_texts_are_counted_with_an_old_vocabulary(kind: NgramKind) -> None:
    both, keys = count(*ngrams(TEXTS, kind), len(TEXTS), 1)
    again = count_known(*ngrams(TEXTS[:3], kind), 3, keys)
    np.testing.assert_array_equal(again.toarray(), both.toarray()[:3])
    assert count_known(*ngrams(["zzzz"], kind), 1, keys[:0]).shape == (1, 0)
    assert count_known(*ngrams([""], kind), 1, keys).nnz == 0


def test_no_texts_with_anything_in_them() -> None:
    for kind in KINDS + OTHER:
        counts, keys = count(*ngrams(["", "  "], kind), 2)
        assert (counts.shape, len(keys)) == ((2, 0), 0)


def test_surface_features_by_hand() -> None:
    short, loud = surface_features(["hi", "HEY YOU!!! http://x"])
    assert short[0] == pytest.approx(np.log(3)) and loud[0] == pytest.approx(np.log(20))
    assert short[1] == pytest.approx(np.log(2)) and loud[1] == pytest.approx(np.log(4))
    assert loud[3] == pytest.approx(6 / 20)  # capitals among the characters
    assert (short[-2], loud[-2]) == (0, 1)  # a link
    assert (short[-1], loud[-1]) == (0, 1)  # begins with a capital


def test_surface_features_depend_on_their_own_text_alone() -> None:
    texts = ["One, two.", "", "THREE 🙂"]
    together = surface_features(texts)
    for row, text in zip(together, texts, strict=True):
        np.testing.assert_array_equal(surface_features([text])[0], row)
