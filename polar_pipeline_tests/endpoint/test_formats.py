"""Whatever comes back is a reply: nothing in an answer can raise, and what the files cannot hold is malformed."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.endpoint.formats import parse_reply, worst_tokens
from polar_pipeline.endpoint.ledger import Ledger
from polar_pipeline.synthesis.generate import planned_requests
from polar_pipeline_tests.synthesis import made

SETTINGS = made.settings()
REQUEST = planned_requests(made.make_posts(), "deu", made.CARD, SETTINGS, 0)[0]
SIZE = len(REQUEST.labels)


def body(content: object, finish: object = "stop", **more: object) -> str:
    return json.dumps({"choices": [{"message": {"content": content}, "finish_reason": finish}], **more})


def posts(text: str) -> str:
    return json.dumps({"posts": [f"{text} {place}" for place in range(SIZE)]})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["choices", "message", "content", "posts", "usage", "finish_reason"]), inner)
    ),
)


@given(JSON, JSON, JSON)
def test_no_answer_raises(whole: object, message: object, usage: object) -> None:
    for text in (
        json.dumps(whole),
        json.dumps({"choices": [message], "usage": usage}),
        json.dumps({"choices": [{"message": message, "finish_reason": whole}], "usage": usage}),
        body(json.dumps(message), usage=usage),
    ):
        assert parse_reply(REQUEST, text, SETTINGS).outcome in ("ok", "malformed", "refused")


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (body(posts("gut")), "ok"),
        (body('{"posts": [' + ", ".join(['"\\ud800"'] * SIZE) + "]}"), "refused"),
        (body("[" * 200_000), "malformed"),
        ("[" * 200_000, "malformed"),
        (body(posts("gut"), finish="\ud800"), "ok"),
        ("", "malformed"),
        (body(None), "malformed"),
    ],
)
def test_what_no_file_can_hold_is_malformed_and_the_ledger_takes_it(tmp_path: Path, text: str, outcome: str) -> None:
    reply = parse_reply(REQUEST, text, SETTINGS)
    assert reply.outcome == outcome
    with Ledger(tmp_path, "deu") as ledger:
        call = ledger.reserve(REQUEST.key, 1.0)
        assert call is not None
        ledger.settle(call, reply)
    with Ledger(tmp_path, "deu") as ledger:
        assert ledger.replies([REQUEST.key]) == {REQUEST.key: reply}


@pytest.mark.parametrize("tokens", [10**400, -1, True, 1.5, "seven", None])
def test_a_count_that_is_none_costs_the_worst_case(tokens: object) -> None:
    reply = parse_reply(REQUEST, body(posts("gut"), usage={"prompt_tokens": tokens, "completion_tokens": 1}), SETTINGS)
    assert not reply.counted and (reply.prompt_tokens, reply.completion_tokens) == worst_tokens(REQUEST)


def test_the_schema_is_in_the_bound() -> None:
    content = sum(len(message.content.encode()) for message in REQUEST.messages)
    assert worst_tokens(REQUEST)[0] > content + len('{"type": "array", "items": {"type": "string"}}')
