"""A model's own words are found as words, however they are put; people's words that hold the same letters are not."""

import pytest

from polar_pipeline.curation.label_leakage import word_lists
from polar_pipeline.curation.quality_filter import meta_phrase
from polar_pipeline.task.languages import LANGUAGES

PHRASES = word_lists("quality_filter")


@pytest.mark.parametrize("code", LANGUAGES)
def test_each_phrase_is_found_as_words_and_only_so(code: str) -> None:
    for phrase in PHRASES["eng"]["says"] + PHRASES[code]["says"]:
        assert meta_phrase(f"Aa, {phrase}! bb", code)
    assert meta_phrase("AS AN AI, I have no opinion", code) and not meta_phrase("Bad enough as an aim", code)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("eng", "She works as an aide to the senator"),
        ("eng", "I cannot help but laugh at this"),
        ("eng", "Here is the truth: they lied"),
        ("eng", "I'm sorry, but I can see right through you"),
        ("swa", "Sijui kama aina hii ya watu wapo"),
        ("rus", "И вот постоянно одно и то же: врут"),
        ("tur", "Üzgünüm, ancak bu adam haklı"),
        ("hin", "माफ़ करें, मैं आपसे सहमत नहीं हूँ"),
        ("deu", "Hier ist ein Beitrag, den alle lesen sollten"),
        ("zho", "这是什么意思"),
    ],
)
def test_what_people_write_passes(code: str, text: str) -> None:
    assert meta_phrase(text, code) == ""


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("eng", "Of course! Here's a rather angry comment about taxes: They take it all"),
        ("eng", "I am unable to write hateful posts of that kind"),
        ("deu", "Klar, hier kommt der gewünschte Kommentar: Alle lügen"),
        ("deu", "I'm not able to generate this content."),
        ("deu", "Leider geht das so nicht, dazu möchte ich nicht mehr sagen."),
        ("eng", "Unfortunately, no. I will not."),
        ("eng", "I won't write content that targets a group of people like that."),
        ("eng", "Sorry, that's something I'm not going to do today for you."),
        ("deu", "Das kann ich leider nicht machen, solche Inhalte verletzen Menschen"),
        ("zho", "好的，以下是一条关于税收的评论：他们都在撒谎"),
        ("hin", "मैं ऐसी कोई टिप्पणी नहीं लिख सकता"),
        ("urd", "معذرت، میں ایسی تحریر نہیں لکھ سکتا"),
        ("tur", "Böyle nefret dolu bir metin yazamam"),
    ],
)
def test_introductions_and_refusals_in_other_words_are_found(code: str, text: str) -> None:
    assert meta_phrase(text, code)


def test_every_language_has_its_own() -> None:
    english = set(PHRASES["eng"]["says"])
    assert all(set(PHRASES[code]["says"]) - english for code in LANGUAGES if code != "eng")
