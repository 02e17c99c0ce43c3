"""Greedy, keep first, exact: the same rows stay as in a plain double loop over all measures, in any block size."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polar_pipeline.curation import dedup
from polar_pipeline.curation.dedup import (
    COSINE,
    TEXT,
    WORDS,
    WordIndex,
    duplicates,
    runs,
    share_of_words,
    word_indices,
    words,
)  # fmt: skip
from polar_pipeline.metrics.scores import Floats, Ints

THRESHOLD, SHARE = 0.9, 0.7


def vectors(rows: int, dimensions: int = 8, seed: int = 0) -> Floats:
    """Unit vectors of which many are near an earlier one."""
    generator = np.random.default_rng(seed)
    found = generator.normal(size=(rows, dimensions))
    for row in range(1, rows):
        if generator.random() < 0.5:
            found[row] = found[generator.integers(row)] + 0.3 * generator.normal(size=dimensions)
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def texts_like(rows: int, seed: int) -> list[str]:
    """Texts of eight words, many of them an earlier one with no or few other words."""
    generator = np.random.default_rng(seed)
    found: list[list[str]] = []
    for _ in range(rows):
        old = found[generator.integers(len(found))] if found and generator.random() < 0.4 else None
        fresh = [f"w{number}" for number in generator.integers(0, 40, 8)]
        found.append(fresh if old is None else [w if generator.random() < 0.9 else "x" for w in old])
    return [" ".join(text) for text in found]


def plainly(texts: list[str], values: Floats, protected: int, pairs: Ints) -> tuple[list[int], dict[int, str]]:
    """Rows that stay, and by which measure the others are near a row that does: one loop in another."""
    kept: list[int] = []
    why: dict[int, str] = {}
    for _, unit in itertools.groupby(range(len(texts)), key=lambda row: pairs[row] if pairs[row] >= 0 else -2 - row):
        members = list(unit)
        near = {}
        for row in members if members[0] >= protected else []:
            mine = set(words(texts[row]))
            for measure, alike in (
                (TEXT, lambda other, row=row: texts[row] == texts[other]),
                (COSINE, lambda other, row=row: values[row] @ values[other] >= THRESHOLD),
                (WORDS, lambda other, mine=mine: _share(mine, texts[other]) >= SHARE),
            ):
                if row not in near and any(alike(other) for other in kept):
                    near[row] = measure
        if near:
            why |= near
        else:
            kept += members
    return kept, why


def _share(mine: set[str], text: str) -> float:
    theirs = set(words(text))
    return len(mine & theirs) / max(len(mine), len(theirs)) if len(mine) >= 6 else 0.0


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 60), st.integers(0, 30), st.integers(0, 1000), st.sampled_from([1, 3, 17, 1536]), st.booleans())
def test_the_rows_that_stay_are_those_of_the_double_loop(
    rows: int, protected: int, seed: int, block: int, paired: bool
) -> None:
    values, texts, protected = vectors(rows, seed=seed), texts_like(rows, seed), min(protected, rows)
    pairs = np.full(rows, -1)
    if paired:
        pairs[protected:] = np.arange(rows - protected) // 2  # the last one may be alone
    before, dedup._BLOCK = dedup._BLOCK, block
    try:
        found = duplicates(texts, values, THRESHOLD, protected, (WordIndex(texts, SHARE),), pairs)
    finally:
        dedup._BLOCK = before
    kept, why = plainly(texts, values, protected, pairs)
    assert np.flatnonzero(found.keep).tolist() == kept
    assert {row: measure for row, measure in enumerate(found.measure) if measure} == why
    for row in why:
        other = found.like[row]
        assert found.keep[other] and other < row
        if why[row] == COSINE:
            most = max(values[row] @ values[earlier] for earlier in kept if earlier < row)
            assert found.similarity[row] == pytest.approx(most, abs=1e-5)
            assert values[row] @ values[other] == pytest.approx(most, abs=1e-5)
    assert (found.like[found.keep] == -1).all()


@pytest.mark.parametrize(("dimensions", "middle", "sketched"), [(64, 0.0, True), (64, 3.0, False)])
def test_sketches_change_nothing(dimensions: int, middle: float, sketched: bool) -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(size=(900, dimensions)) + middle
    values[500:700] = values[:200] + 0.2 * generator.normal(size=(200, dimensions))
    values = (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)
    threshold = 0.97
    assert (dedup._sketches(values, threshold).shape[1] < dimensions) == sketched
    found = duplicates([""] * 900, values, threshold)
    kept: list[int] = []
    for row in range(900):
        if not (values[kept] @ values[row] >= threshold).any():
            kept.append(row)
    assert np.flatnonzero(found.keep).tolist() == kept and 100 < len(kept) < 900


def test_a_row_leaves_only_for_one_that_stays_whichever_measure_took_the_others() -> None:
    # b is near a by its vector, c shares its words with b alone, d its vector with c alone
    values = np.array([[1, 0, 0], [0.95, 0.312, 0], [0, 1, 0], [0, 0.95, 0.312]], dtype=np.float32)
    texts = ["a b c d e f g h", "p q r s t u v w", "p q r s t u v x", "i j k l m n o y"]
    found = duplicates(texts, values, THRESHOLD, 0, (WordIndex(texts, SHARE),))
    assert found.keep.tolist() == [True, False, True, False]
    assert found.like.tolist() == [-1, 0, -1, 2] and found.measure == ["", COSINE, "", COSINE]


def test_equal_texts_go_whatever_their_vectors_and_empty_ones_are_like_nothing() -> None:
    found = duplicates(["a", "b", "a", "", ""], np.eye(5, dtype=np.float32), 0.9)
    assert found.like.tolist() == [-1, -1, 0, -1, -1] and found.similarity[2] == 1 and found.measure[2] == TEXT


def test_protected_rows_stay_though_they_are_alike() -> None:
    values = np.ones((4, 2), dtype=np.float32) / np.float32(np.sqrt(2))
    assert duplicates(["a", "a", "c", "d"], values, 0.9, protected=2).like.tolist() == [-1, -1, 0, 0]


def test_a_row_as_near_as_the_threshold_leaves() -> None:
    values = np.array([[1, 0], [0.6, 0.8]], dtype=np.float32)
    assert duplicates(["", ""], values, 0.6).keep.tolist() == [True, False]


def test_halves_of_a_pair_may_be_alike_but_leave_together() -> None:
    values = np.array([[1, 0], [1, 0], [1, 0], [0, 1]], dtype=np.float32)
    found = duplicates(["a", "b", "c", "d"], values, 0.9, pairs=np.array([0, 0, 1, 1]))
    assert found.keep.tolist() == [True, True, False, False] and found.like.tolist() == [-1, -1, 0, -1]


def test_no_rows() -> None:
    assert len(duplicates([], np.zeros((0, 3), dtype=np.float32), 0.9).like) == 0


# copies with a few other words

FIRST = "Die Stadt hat wieder einmal nichts getan und alle reden nur über das Wetter"
TEXTS = st.lists(st.lists(st.sampled_from("abcdefghijkl"), max_size=12).map(" ".join), min_size=1, max_size=25)


def plainly_by_words(texts: list[str], row: int, added: list[int], share: float) -> tuple[int, float] | None:
    mine = set(texts[row].split())
    best = None
    for other in added:
        theirs = set(texts[other].split())
        alike = len(mine & theirs) / max(len(mine), len(theirs), 1)
        if len(mine) >= 6 and alike >= share and (best is None or alike > best[1]):
            best = other, alike
    return best


@settings(max_examples=150)
@given(TEXTS, st.sampled_from([0.5, 0.7, 0.75, 0.9]), st.data())
def test_the_same_as_comparing_each_with_each(texts: list[str], share: float, data: st.DataObject) -> None:
    added = sorted(data.draw(st.sets(st.integers(0, len(texts) - 1))))
    index = WordIndex(texts, share)
    for row in added:
        index.add(row)
    for row in range(len(texts)):
        assert index.near(row) == plainly_by_words(texts, row, added, share)


def test_one_other_word_is_a_copy_and_half_of_them_is_none() -> None:
    texts = [
        FIRST,
        FIRST.replace("Wetter", "Essen"),
        "Die Stadt hat wieder einmal alles gebaut, was man im Sommer braucht",
    ]
    index = WordIndex(texts, share_of_words(0.9))
    index.add(0)
    assert index.near(1) == (0, pytest.approx(13 / 14)) and index.near(2) is None


@pytest.mark.parametrize(
    ("text", "changed", "other"),
    [
        (
            "这些人从来不关心我们普通老百姓的生活",
            "这些人从来不关心我们普通老百姓的死活",
            "今天的天气真不错我们去公园散步吧",
        ),
        ("คนพวกนี้ไม่เคยสนใจชีวิตของเราเลย", "คนพวกนี้ไม่เคยสนใจเรื่องของเราเลย", "วันนี้อากาศดีมากเราไปเดินเล่นกัน"),
    ],
)
def test_characters_side_by_side_are_words_where_there_are_no_spaces(text: str, changed: str, other: str) -> None:
    index = WordIndex([text, changed, other], 0.7)
    index.add(0)
    found = index.near(1)
    assert found is not None and found[0] == 0 and index.near(2) is None


def test_words() -> None:
    assert words("Ganz ANDERS, it's 极化了 x") == ["ganz", "anders", "it's", "x", "极化", "化了"]
    assert words("极!!") == ["极"] and words("!!") == []


def test_the_share_follows_the_cosine() -> None:
    assert share_of_words(1.0) == 1.0 and share_of_words(0.9) == pytest.approx(0.7)


def test_what_stands_between_spaces_counts_too_where_a_script_has_few() -> None:
    text = "ဒီလူတွေဟာ ကျွန်တော်တို့ရဲ့ ဘဝကို ဘယ်တော့မှ ဂရုမစိုက်ကြဘူး ဆိုတာ အားလုံး သိကြပါတယ် ခင်ဗျာ"
    assert len(runs(text)) >= 8 and len(words(text)) > 3 * len(runs(text))
    assert (
        len(word_indices([text], 0.7)) == 2 and len(word_indices([FIRST], 0.7)) == 1 and word_indices([text], 1.0) == ()
    )
