"""Wrappers come off, people's own marks stay, and cleaning twice is cleaning once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.curation.cleaning import clean, clean_replies, has_markup


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ('"Alles wie immer."', "Alles wie immer."),
        ("„Alles wie immer.“", "Alles wie immer."),
        ('Post 3: "Alles wie immer."', "Alles wie immer."),
        ("Answer: because they hate us", "Answer: because they hate us"),
        ("1. Mai ist Feiertag", "1. Mai ist Feiertag"),
        ("- 5 Grad, und keiner heizt", "- 5 Grad, und keiner heizt"),
        ('"<<b>b>x"', "x"),
        ("a <b und c> d", "a <b und c> d"),
        ("<p class='x' id=y>Alles<br/></p>", "Alles"),
        ("So ein f**k und b**ch", "So ein f**k und b**ch"),
        ("**Alles** wie immer", "Alles wie immer"),
        ("<p>Alles wie immer</p>", "Alles wie immer"),
        ("a\u0000b\u0007c", "abc"),
        ("Cafe\u0301", "Café"),
        ("  Zeile\r\nZeile  ", "Zeile\nZeile"),
        ('"So" sagt er, und "so"', '"So" sagt er, und "so"'),
        ("5 Uhr, und keiner da", "5 Uhr, und keiner da"),
        ("a < b und b > c <3", "a < b und b > c <3"),
        ("#eins * zwei", "#eins * zwei"),
        ("", ""),
    ],
)
def test_exact_cases(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@given(st.text(max_size=60))
def test_twice_is_once(text: str) -> None:
    assert clean(clean(text)) == clean(text)


MARKUP = st.lists(
    st.sampled_from(
        ["<b>", "</b>", "<", ">", "b", '"', "**", "__", "Post 1: ", "1. ", "- ", " ", "\n", "```", "'", "x"]
    )
)


@given(MARKUP.map("".join))
def test_twice_is_once_of_markup_too(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(st.lists(MARKUP.map("".join), max_size=3))
def test_replies_twice_are_once(texts: list[str]) -> None:
    once = clean_replies(texts, ["k"] * len(texts))
    assert clean_replies(once, ["k"] * len(texts)) == once


def test_numbers_go_where_the_whole_reply_is_a_list() -> None:
    assert clean_replies(["1. Alles", '"2. wie immer"', "3. hier"], ["k"] * 3) == ["Alles", "wie immer", "hier"]
    assert clean_replies(["- Alles", "- wie immer"], ["k"] * 2) == ["Alles", "wie immer"]
    for texts in (["1. Mai ist Feiertag", "Alles wie immer"], ["1. Mai ist Feiertag", "1. Juni auch"], ["1. Mai"]):
        assert clean_replies(texts, ["k"] * len(texts)) == texts
    assert (
        clean_replies(["1. Mai", "2. Mai"], ["k", "l"])
        == clean_replies(["1. Mai", "2. Mai"], ["", ""])
        == ["1. Mai", "2. Mai"]
    )


def test_names_of_the_field_go_where_the_whole_reply_has_them() -> None:
    assert clean_replies(["Post: Alles", "Post: wie immer"], ["k"] * 2) == ["Alles", "wie immer"]
    assert clean_replies(["Post: 1. Alles", "Post: 2. wie immer"], ["k"] * 2) == ["Alles", "wie immer"]
    for texts in (["Answer: because they hate us", "Alles"], ["Answer: because they hate us"]):
        assert clean_replies(texts, ["k"] * len(texts)) == texts


def test_markup_that_is_left_is_noticed() -> None:
    assert has_markup("<table class='x'><tr>") and has_markup("[hier](http://x)") and has_markup("x</article>")
    assert not has_markup("1 < 2 > 0, <3 und :-)")
