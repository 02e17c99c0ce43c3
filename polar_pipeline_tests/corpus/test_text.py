"""Blank texts, the key under which posts count as duplicates with its groups, and the dominant script."""

import unicodedata

import pandas as pd
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.corpus.text import OTHER, SCRIPTS, bare, dominant_scripts, duplicate_groups, is_blank, normalise
from polar_pipeline.task.languages import LANGUAGES


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Hello, World!", "helloworld"),
        ("  a\tb\r\nc\u00a0d\u3000e ", "abcde"),
        ("STRASSE straße", "strassestrasse"),
        ("ＦＵＬＬ width ①", "fullwidth1"),
        ("see https://t.co/AbC?x=1#y now", "seenow"),
        ("see HTTPS://T.CO/abc and www.example.org/x", "seeand"),
        ("@User_1 hi @USER", "hi"),
        ("@URL [URL] hi", "hi"),
        ("an url", "anurl"),
        ("看https://t.co/a1b2你好", "看你好"),
        ("@USER你好，世界。", "你好世界"),
        ("e\u200d\u0301 e\u0301", "éé"),
        ("“Zitat” – …", "zitat"),
        ("soft\u00adhyphen zero\u200bwidth", "softhyphenzerowidth"),
        ("नमस्ते दुनिया।", "नमस्तेदुनिया"),
        ("😀😀", "😀😀"),
        ("@USER", ""),
        ("...", ""),
        ("", ""),
    ],
)
def test_keys(text: str, key: str) -> None:
    assert normalise(text) == key


def test_the_bare_text_keeps_addresses() -> None:
    assert bare("See HTTPS://t.co/A-1 @Me") == "seehttpstcoa1me"


@given(st.text())
def test_keys_hold_no_punctuation_space_or_control(text: str) -> None:
    key = normalise(text)
    assert not regex.search(r"[\p{P}\p{Z}\p{Cc}\p{Cf}]", key)
    assert unicodedata.is_normalized("NFKC", key)


@given(st.text(), st.sampled_from(["!", " ", "\n", "\u200b", "…", " @someone ", " https://t.co/x "]))
def test_what_is_taken_away_makes_no_difference(text: str, nothing: str) -> None:
    assert normalise(f"{text} {nothing}") == normalise(text)


def groups_of(*texts: str) -> list[int]:
    return duplicate_groups(pd.DataFrame({"text": list(texts)})).tolist()


def test_groups_are_numbered_by_first_appearance() -> None:
    assert groups_of("b!", "a", "B", "c", "A.") == [0, 1, 0, 2, 1]


def test_posts_without_content_are_alone() -> None:
    assert groups_of("@USER", "a", "@USER", "...", "a") == [0, 1, 2, 3, 1]


def test_texts_that_look_like_row_numbers_are_texts() -> None:
    assert groups_of("1", "@USER", "0") == [0, 1, 2]


def test_no_posts_no_groups() -> None:
    assert groups_of() == []


@given(st.lists(st.sampled_from(["a", "A", "b", "b!", "@x", "c c", "cc"]), max_size=12))
def test_same_group_exactly_when_same_key(texts: list[str]) -> None:
    groups = groups_of(*texts)
    keys = [normalise(text) or position for position, text in enumerate(texts)]
    assert len(set(groups)) == len(set(keys)) == len(set(zip(groups, keys, strict=True)))
    assert list(dict.fromkeys(groups)) == list(range(len(set(keys))))


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


@pytest.mark.parametrize(
    "text", ["", " ", "\u3000\n\t", "\u200b", "\ufeff \u2060\u00ad", "\ufe0f", "\u3164\u115f", "\u2800", "\x00\x1f\x85"]
)
def test_texts_without_a_visible_character_are_blank(text: str) -> None:
    assert is_blank(text)


@pytest.mark.parametrize("text", ["a", " .", "\u200b1", "👍\ufe0f", "ି", "@"])
def test_anything_visible_is_not_blank(text: str) -> None:
    assert not is_blank(text)
