"""Other languages are told from the own one by words, letters and an identifier, as far as its real posts allow."""

import numpy as np
import pytest

from polar_pipeline.corpus.identification import Identification, Identifier
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.corpus.text import dominant_scripts
from polar_pipeline.curation.language_filter import LanguageFilter, LetterEvidence, WordEvidence, function_words
from polar_pipeline.task.card import load_card
from polar_pipeline.task.languages import LANGUAGES, language

CARD = load_card("polar")
POSTS = {code: read_posts(bundled_folder(), code, CARD)["text"].tolist() for code in ("deu", "eng", "hin")}
PUNJABI = ["اسیں ساریاں نوں دسیا سی کہ ایہہ گل ٹھیک نئیں اے", "اوہ بندہ کل ساڈے کول آیا سی تے کجھ نئیں کیتا"]
URDU = ["ہم نے سب کو بتایا تھا کہ یہ بات ٹھیک نہیں ہے", "وہ آدمی کل ہمارے پاس آیا تھا اور اس نے کچھ نہیں کیا"]
HINDI = ["हम ने सब को बताया था कि यह बात ठीक नहीं है", "वह आदमी कल हमारे पास आया था और उस ने कुछ नहीं किया"]
NEPALI = ["यो कुरा पनि ठीक छैन भने हामी अब के गर्ने हो र", "त्यो मान्छे मेरो लागि आएको थियो तर उनले केही गरेका छैन"]


def flagged(texts: list[str], known: LanguageFilter) -> list[bool]:
    return [bool(known.foreign(text, script)) for text, script in zip(texts, dominant_scripts(texts), strict=True)]


def test_real_posts_that_were_not_learned_from_pass() -> None:
    for code, texts in POSTS.items():
        assert np.mean(flagged(texts[1::2], LanguageFilter(language(code), texts[::2]))) < 0.03


def test_another_language_of_the_same_script_is_seen() -> None:
    assert np.mean(flagged(POSTS["eng"], LanguageFilter(language("deu"), POSTS["deu"]))) > 0.95
    assert np.mean(flagged(POSTS["deu"], LanguageFilter(language("eng"), POSTS["eng"]))) > 0.95


def test_what_many_real_posts_are_written_in_is_no_fault() -> None:
    english = POSTS["eng"]
    mixed = POSTS["deu"] + english[: len(english) // 2]
    assert np.mean(flagged(english[len(english) // 2 :], LanguageFilter(language("deu"), mixed))) < 0.1


@pytest.mark.parametrize(
    ("code", "own", "others"),
    [("urd", URDU, PUNJABI), ("pan", PUNJABI, URDU), ("hin", HINDI, NEPALI), ("nep", NEPALI, HINDI)],
)
def test_function_words_tell_neighbours_apart(code: str, own: list[str], others: list[str]) -> None:
    found = WordEvidence(
        language(code), own * 20, frozenset(language(code).scripts), frozenset({language(code).iso639_1})
    )
    assert max(found(text)[0] for text in own) < 0 < min(found(text)[0] for text in others)


def test_a_post_is_no_evidence_for_itself() -> None:
    strange = "Zyx wvu tsr qpo nml kji hgf edc"
    letters = LetterEvidence([*POSTS["deu"], strange])
    assert letters(strange, counted=True) > 0 > letters(strange)
    words = WordEvidence(language("deu"), [*POSTS["deu"], "the of and to is"], frozenset({"Latin"}), frozenset({"de"}))
    assert words("the of and to is", counted=True)[0] > words("the of and to is")[0]


def test_lists_are_there_for_all_languages_that_share_a_script() -> None:
    by_script: dict[str, list[str]] = {}
    for entry in LANGUAGES.values():
        by_script.setdefault(entry.scripts[0], []).append(entry.iso639_1)
    for script, codes in by_script.items():
        assert len(codes) == 1 or set(codes) <= set(function_words()[script])


def test_of_an_accepted_language_no_more_passes_than_the_real_posts_have() -> None:
    german, english = POSTS["deu"], POSTS["eng"]
    known = LanguageFilter(language("deu"), german + english[: len(german) // 6])
    assert 0.08 < known.shares["en"] < 0.2
    rest = english[len(german) // 6 :][:200]
    few, more = german[:180] + rest[:20], german[:140] + rest[:60]
    assert known.surplus(few) == {}
    found = known.surplus(more)
    assert 15 < len(found) < 45 and "language en" in next(iter(found.values()))
    assert min(found) > 140 + 15 and max(found) >= 195  # the first ones pass
    assert known.surplus(more) == found


def test_nothing_passes_where_the_generator_fell_back_to_an_accepted_language() -> None:
    german, english = POSTS["deu"], POSTS["eng"]
    known = LanguageFilter(language("deu"), german + english[: len(german) // 6])
    rest = english[len(german) // 6 :]
    found = known.surplus(rest[:100])
    assert len(found) >= 98 and "language en" in next(iter(found.values()))
    found = known.surplus(german[:20] + rest[:180])
    assert len(found) > 0.97 * 180 and sum(place < 20 for place in found) <= 1
    assert known.surplus(german) == {} or len(known.surplus(german)) < 3


def test_an_identifier_of_the_users_own_is_asked() -> None:
    def says(text: str) -> Identification:
        return Identification("xx" if "kumquat" in text else "de", 1.0, True)

    known = LanguageFilter(language("deu"), POSTS["deu"], Identifier(says, {}))
    text = POSTS["deu"][0]
    assert flagged([text], known) == [False]
    assert flagged(["kumquat zzq xyw qqj vvk"], known) == [True]
    assert known.names == {"de"}


def test_the_identifier_says_nothing_between_languages_that_it_calls_by_one_name() -> None:
    known = LanguageFilter(language("urd"), URDU * 30)
    assert known.names == {"ur"} and "pa" in known.shares
    assert flagged(PUNJABI, known) == [True, True] and flagged(URDU, known) == [False, False]
