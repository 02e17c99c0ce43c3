"""Answers are read as far as they are unambiguous, and no label moves to another post."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.endpoint.answers import MALFORMED, OK, REFUSED, TRUNCATED, read_texts
from polar_pipeline.endpoint.completion import model_output
from polar_pipeline.endpoint.connection import Key
from polar_pipeline.endpoint.exceptions import error_inside, without_secrets
from polar_pipeline.endpoint.rate_limit import wait_in


def body(content: Any, finish: str | None = "stop", **message: Any) -> str:
    return json.dumps({"choices": [{"message": {"content": content, **message}, "finish_reason": finish}]})


def read(content: Any, labels: str = "11", shiftable: bool = False, **more: Any) -> tuple[list[str | None], str]:
    found = read_texts(model_output(body(content, **more)), [int(label) for label in labels], shiftable)
    return list(found.texts), found.outcome


@pytest.mark.parametrize(
    "content",
    [
        '{"posts": ["a", "b"]}', '["a", "b"]', "```json\n[\"a\", \"b\"]\n```", 'x {"posts": ["a", "b"]} y',
        '{"posts": ["a", "b",]}', "{'posts': ['a', 'b']}", '{"posts": [{"text": "a"}, {"text": "b"}]}',
        '{"1": "a", "2": "b"}', '<think>["x", "y"]</think>["a", "b"]', '{"posts": ["a", "b"]',
        '{"posts": [["a"], ["b"]]}',
        '{"thoughts": "two", "posts": ["a", "b"]}', '[{"label": 1, "text": "a"}, {"label": 1, "text": "b"}]',
    ],
)  # fmt: skip
def test_one_meaning_in_many_forms(content: str) -> None:
    assert read(content) == (["a", "b"], OK)


@pytest.mark.parametrize(
    "content",
    ["", "I cannot do that.", "{}", "[]", '{"posts": "a"}', '{"a": ["x"], "b": ["y"]}',
     "[" * 100_000, "1. a\n3. b", None, 7, '{"error": "no", "reasons": ["a", "b"]}', "I cannot:\n1. a\n2. b"],
)  # fmt: skip
def test_what_means_nothing_for_sure_is_not_read(content: Any) -> None:
    assert read(content) == ([], MALFORMED)


@pytest.mark.parametrize("text", ["My message", "Example", "#tweet", "the second post!", "a" * 90 + " text1"])
def test_short_posts_of_the_words_of_placeholders_are_posts(text: str) -> None:
    assert read(json.dumps({"posts": [text, "b"]})) == ([text, "b"], OK)


def test_a_judge_may_repeat_labels_beside_its_numbers() -> None:
    judged = model_output(body('{"posts": ["0.9", "0.1"], "labels": [1, 0]}'))
    assert read_texts(judged, [0, 0], False, "probability").texts == ("0.9", "0.1")


def test_blanks_that_a_stream_sends_alone_are_kept() -> None:
    pieces = ['{"posts": ["a', " ", "b", "\n", 'c", "d"]}']
    events = [f"data: {json.dumps({'choices': [{'delta': {'content': piece}}]})}" for piece in pieces]
    said = model_output("\n\n".join([*events, "data: [DONE]"]))
    assert read_texts(said, [1, 1], True).texts == ("a b\nc", "d")


def test_hostile_answers_take_no_time() -> None:
    """Each of these took seconds to minutes, or never ended, with patterns that backtrack."""
    for text in ("```" + "a" * 60_000, "[" + "'a' b " * 9000 + "]"):
        assert read(text)[0] == []
    key = Key("OPENAI_API_KEY", "sk-1234567")
    assert error_inside("<!---->" * 40, key) is None
    deep = error_inside('{"error":' + '{"message":' * 400 + '"x"' + "}" * 401, key)
    assert deep is not None and deep.failure == "status 500"
    assert wait_in({"retry_after": "1" * 20_000}) == 0


def test_a_word_in_place_of_a_key_is_cut_out_of_no_post() -> None:
    key = Key("OPENAI_API_KEY", "anything", ("sk-1234567",))
    assert without_secrets("I would do anything. sk-1234567", key) == "I would do anything. [secret]"
    assert without_secrets("Bearer anything", key) == "Bearer [key]"


@pytest.mark.parametrize("posts", [[None, None], ["\ud800", ""], ["...", "text1"], ["no", "no"], ["1043", "77"]])
def test_an_answer_in_the_right_form_without_a_post_is_a_refusal(posts: list[str | None]) -> None:
    """It was paid for, and asking again would cost as much once more."""
    assert read(json.dumps({"posts": posts})) == ([], REFUSED)


@pytest.mark.parametrize(
    ("labels", "texts", "kept"),
    [
        # one is missing, and nobody knows which: those keep their label wherever it is
        ("111000", "abcde", ["a", "b", None, "d", "e", None]),
        ("1111", "abc", ["a", "b", "c", None]),
        ("10", "a", None),
        # one is too many
        ("111000", "abcdefg", ["a", "b", "c", None, "e", "f"]),
        ("11", "abc", ["a", "b"]),
        ("10", "abc", ["a", None]),
    ],
)  # fmt: skip
def test_too_few_or_too_many(labels: str, texts: str, kept: list[str | None] | None) -> None:
    content = json.dumps({"posts": list(texts)})
    assert read(content, labels, shiftable=True) == ((kept, OK) if kept else ([], MALFORMED))
    assert read(content, labels, shiftable=False) == ([], MALFORMED)


@given(st.lists(st.integers(0, 1), min_size=1, max_size=8), st.sets(st.integers(0, 7)))
def test_no_text_gets_a_label_that_was_not_asked_of_it(labels: list[int], dropped: set[int]) -> None:
    """Whichever posts a model leaves out."""
    given_ = [f"{place}" for place in range(len(labels)) if place not in dropped]
    texts, _ = read(json.dumps(given_), "".join(map(str, labels)), shiftable=True)
    for place, text in enumerate(texts):
        assert text is None or labels[int(text)] == labels[place]


def test_a_cut_answer_keeps_its_whole_posts_if_they_stand_for_themselves() -> None:
    assert read('{"posts": ["a", "b", "c', "110", True, finish="length") == (["a", "b", None], OK)
    assert read('{"posts": ["a", "b", "c', "110", False, finish="length") == ([], TRUNCATED)
    assert read('{"posts": [{"text": "a"}, {"text": "b', "11", True, finish="length") == ([], TRUNCATED)


def test_refusals_and_reasons() -> None:
    assert read(None, refusal="no") == ([], REFUSED)
    assert read('["a", "b"]', finish="content_filter") == ([], REFUSED)
    assert read('["a", "b"]', finish=None) == (["a", "b"], OK)
    assert model_output("<html>").finish == model_output("[]").finish == "unreadable"


@given(st.text())
def test_nothing_raises(text: str) -> None:
    read_texts(model_output(text), [1, 0], True)
    read(text, shiftable=True)


def test_apostrophes_in_single_quotes_and_posts_that_were_cut() -> None:
    assert read("""{'posts': ["it's fine", 'b']}""") == (["it's fine", "b"], OK)
    assert read('{"posts": ["a", "half of a po') == ([], MALFORMED)


def test_the_labels_that_objects_tell_are_those_that_were_asked_for() -> None:
    told = [{"label": "polarized", "text": "a"}, {"label": "not", "text": "b"}]
    assert read(json.dumps(told), "10") == (["a", "b"], OK)
    assert read(json.dumps([*told, told[0]]), "110") == ([], MALFORMED)
    judged = model_output(body('[{"text": "x", "probability": "1"}, {"text": "y", "probability": 0.2}]'))
    assert read_texts(judged, [1, 1], False, "probability").texts == ("1", "0.2")
    translated = model_output(body('[{"text": "original", "translation": "a"}, {"text": "o", "translation": "b"}]'))
    assert read_texts(translated, [1, 0], False, "translation").texts == ("a", "b")


@pytest.mark.parametrize(
    "content",
    [
        '{"posts": ["a \\x", "b", "c', '["He said "no" to it", "b", "c', '{"posts": ["\\ud800", "b", "c',
        '{"note": "only one", "posts": ["a", "b', "We need [polarized, not]: \"send them back\" and \"nice day\". Let",
    ],
)  # fmt: skip
def test_a_cut_answer_gives_no_post_that_is_doubtful(content: str) -> None:
    assert read(content, "1010", True, finish="length") == ([], TRUNCATED)
    assert read("", "11", True, finish="length", reasoning_content='["a", "b", "c') == ([], TRUNCATED)


def test_a_numbered_list_and_thoughts() -> None:
    assert read("1. a\n2. b\n3. c", "101") == (["a", "b", "c"], OK)
    assert read("I cannot, because:\n1. a\n2. b\n3. c", "101") == ([], MALFORMED)
    assert read("", "11", reasoning_content='I think.\n{"posts": ["a", "b"]}') == (["a", "b"], OK)
    assert read("", "11", reasoning_content='maybe ["x", "y"]?') == ([], MALFORMED)
