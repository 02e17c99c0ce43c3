"""An assistant's own words are found however they are put; people's words that hold the same words are not."""

import time

import numpy as np
import pytest

from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.curation.assistant_talk import AssistantTalk, split_sentences
from polar_pipeline.curation.label_leakage import word_lists
from polar_pipeline.task.card import load_card
from polar_pipeline.task.languages import LANGUAGES

CARD = load_card("polar")
POST = {"eng": "They take it all", "deu": "Die nehmen uns alles weg", "hin": "वे हम से सब कुछ छीन लेते हैं"}
REAL = {code: read_posts(bundled_folder(), code, CARD)["text"].tolist() for code in POST}
TALK = {code: AssistantTalk(code, texts) for code, texts in REAL.items()}
EXAMPLES = word_lists("assistant_talk_examples")


@pytest.mark.parametrize("code", POST)
def test_real_posts_pass(code: str) -> None:
    other = AssistantTalk(code, REAL[code][::2])
    assert np.mean([bool(other(text)) for text in REAL[code][1::2]]) < 0.03


@pytest.mark.parametrize("code", POST)
def test_the_examples_are_found_with_a_post_before_or_after_them(code: str) -> None:
    for language in {"eng", code}:
        said = [f"{phrase} {POST[code]}" for phrase in EXAMPLES[language]["meta"]]
        said += EXAMPLES[language]["refusal"]
        said += [f"{POST[code]}. {phrase}" for phrase in EXAMPLES[language].get("closing", [])]
        assert np.mean([bool(TALK[code](text)) for text in said]) > 0.85


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("eng", "Of course! Here's a rather angry comment about taxes: {}"),
        ("eng", "I am unable to write hateful posts of that kind"),
        ("eng", "{}. (Note: this post is fictional and was written for research.)"),
        ("eng", "{}. Let me know if you would like another version!"),
        ("deu", "Klar, hier kommt der gewünschte Kommentar: {}"),
        ("deu", "I'm not able to generate this content."),
        ("deu", "Ich bin nicht in der Lage, solche Texte zu schreiben."),
        ("deu", "{}. Hinweis: Dieser Beitrag ist frei erfunden."),
        ("hin", "मैं ऐसी कोई टिप्पणी नहीं लिख सकता"),
        ("hin", "Here is a post in Hindi: {}"),
    ],
)
def test_introductions_refusals_and_notes_in_other_words_are_found(code: str, text: str) -> None:
    assert TALK[code](text.replace("{}", POST[code]))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("eng", "She works as an aide to the senator"),
        ("eng", "I cannot help but laugh at this"),
        ("eng", "Here is the truth: they lied"),
        ("eng", "I'm sorry, but I can see right through you"),
        ("deu", "Hier ist es heute wieder sehr heiß"),
        ("deu", "Leider kann ich heute nicht kommen"),
        ("hin", "माफ़ करें, मैं आपसे सहमत नहीं हूँ"),
    ],
)
def test_what_people_write_passes(code: str, text: str) -> None:
    assert TALK[code](text) == ""


def test_case_accents_and_apostrophes_do_not_matter() -> None:
    for text in ("AS AN AI, I HAVE NO OPINION", "I can\u2019t assist with that", "i can't ASSIST with that"):
        assert TALK["eng"](text)
    for text in ("Es tut mir leid, dabei kann ich nicht helfen.", "ES TUT MIR LEID, DABEI KANN ICH NICHT HELFEN."):
        assert TALK["deu"](text)


def test_sentences_end_at_colons_dashes_and_lines_and_know_their_place() -> None:
    found = split_sentences("Sure! Post 2 \u2014 They lie\nAll of them. 好的：他们在撒谎")
    parts, joined = found[:6], found[6:]
    assert [one.text for one in parts] == ["Sure!", "Post 2 \u2014", "They lie", "All of them.", "好的：", "他们在撒谎"]
    assert [(one.before, one.after) for one in parts] == [(at, 5 - at) for at in range(6)]
    assert joined == [("Post 2 \u2014 They lie", 1, 3), ("好的： 他们在撒谎", 4, 0)]
    assert [one.text for one in split_sentences("They lie (a note)")] == ["They lie", "(a note)"]
    assert split_sentences("a " * 60)[-1] == ("a " * 34 + "a", 1, 0)  # what follows a post that has no stop
    assert [one.text for one in split_sentences("a. b. c. d. e. f. g. h.")] == ["a.", "b.", "c.", "f.", "g.", "h."]
    assert split_sentences("") == [("", 0, 0)]


def test_the_same_posts_teach_the_same(  # the model that is fitted has no randomness
) -> None:
    again = AssistantTalk("deu", REAL["deu"])
    assert [again(text) for text in REAL["deu"]] == [TALK["deu"](text) for text in REAL["deu"]]


def test_a_few_real_posts_are_enough_to_work() -> None:
    few = AssistantTalk("deu", REAL["deu"][:10])
    assert few("Ich kann diesen Beitrag leider nicht schreiben.") and few(REAL["deu"][20]) == ""


@pytest.mark.parametrize("part", ["(", "here is ", "\"' ", ". ", "\n", "- \u2014 ", "post: ", "好", "\u0301"])
def test_long_texts_take_no_longer(part: str) -> None:
    start = time.perf_counter()
    TALK["eng"](part * (100_000 // len(part)))
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_language_has_words_of_every_meaning_and_examples(code: str) -> None:
    lists = word_lists("assistant_talk")
    assert all(len(lists[code][kind]) >= 5 for kind in lists["eng"])
    assert all(len(EXAMPLES[code][kind]) >= 8 for kind in ("meta", "refusal"))
