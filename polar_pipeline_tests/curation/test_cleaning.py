"""Wrappers come off, people's own marks stay, and cleaning twice is cleaning once."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.curation.cleaning import clean, has_markup


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ('"Alles wie immer."', "Alles wie immer."),
        ("„Alles wie immer.“", "Alles wie immer."),
        ("1. Alles wie immer.", "Alles wie immer."),
        ('Post 3: "1) Alles wie immer."', "Alles wie immer."),
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


def test_markup_that_is_left_is_noticed() -> None:
    assert has_markup("<table class='x'><tr>") and has_markup("[hier](http://x)") and has_markup("x</article>")
    assert not has_markup("1 < 2 > 0, <3 und :-)")
