"""Texts that share nearly all words are found as by comparing each with each; scripts without spaces have words, too."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polar_pipeline.curation.overlap import WordIndex, runs, share_of_words, word_indices, words

FIRST = "Die Stadt hat wieder einmal nichts getan und alle reden nur über das Wetter"
TEXTS = st.lists(st.lists(st.sampled_from("abcdefghijkl"), max_size=12).map(" ".join), min_size=1, max_size=25)


def plainly(texts: list[str], row: int, added: list[int], share: float) -> tuple[int, float] | None:
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
        assert index.near(row) == plainly(texts, row, added, share)


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
