"""The dominant script of a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.corpus.scripts import OTHER, SCRIPTS, dominant_scripts
from polar_pipeline.task.languages import LANGUAGES


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("hello", "Latin"),
        ("नमस्ते", "Devanagari"),
        ("yah bahut accha hai नमस्ते", "Latin"),
        ("नमस्ते दुनिया ok", "Devanagari"),
        ("پنجابی", "Arabic"),
        ("ሰላም", "Ethiopic"),
        ("中文A", "Han"),
        ("ひらがなの中", "Hiragana"),
        ("ଓଡ଼ିଆ", "Oriya"),
        ("ᚠᚢᚦ", OTHER),
        ("é ß ﬁ", "Latin"),
        ("12345 !? 😀", ""),
        ("", ""),
        # a long vowel sign is a letter of several scripts, so of none
        ("ーーーー ab", "Latin"),
        # marks and digits do not outvote letters
        ("a १२३४५", "Latin"),
        ("क़\u094d\u0940\u0941 ab", "Latin"),
    ],
)
def test_the_script_of_most_letters(text: str, script: str) -> None:
    assert dominant_scripts([text]) == [script]


@given(st.lists(st.text(alphabet="abक中🙂 .ᚠ"), max_size=6))
def test_each_text_is_judged_by_itself(texts: list[str]) -> None:
    assert dominant_scripts(texts) == [dominant_scripts([text])[0] for text in texts]


def test_every_registered_script_is_known() -> None:
    assert {script for language in LANGUAGES.values() for script in language.scripts} <= set(SCRIPTS)
    assert len(set(SCRIPTS)) == len(SCRIPTS)
