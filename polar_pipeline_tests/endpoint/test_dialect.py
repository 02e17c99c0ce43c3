"""What refusals name leads to another way of asking, and other refusals to none."""

from pathlib import Path

import pytest

from polar_pipeline.endpoint.dialect import Dialect, adapted, body_in, first_dialect, remember, remembered
from polar_pipeline.synthesis.generate import planned_requests
from polar_pipeline_tests.synthesis import made

REQUEST = planned_requests(made.make_posts(), "deu", made.CARD, made.settings(), 0)[0]
FULL = Dialect()


@pytest.mark.parametrize(
    ("failure", "words", "change"),
    [
        ("status 400", "Invalid schema: 'maxItems' is not permitted", {"answers": "json_schema_unsized"}),
        ("status 400", "response_format of type json_schema is not supported", {"answers": "json_object"}),
        ("status 500", "Unable to generate a grammar for this schema", {"answers": "json_object"}),
        ("status 422", "response_format.type: must be one of text, json_object", {"answers": "json_object"}),
        ("status 400", "Use 'max_completion_tokens' instead of 'max_tokens'", {"limit_name": "max_completion_tokens"}),
        ("status 400", "Unsupported value: 'temperature'", {"temperature": False}),
        ("status 400", "the request exceeds the available context size", {"most_tokens": REQUEST.max_tokens // 2}),
        ("status 400", "your prompt was flagged", None),
        ("status 429", "response_format", None),
        ("status 503", "schema", None),
        ("status 400", "", None),
    ],
)
def test_what_words_lead_to(failure: str, words: str, change: dict[str, object] | None) -> None:
    found = adapted(FULL, failure, words, REQUEST)
    assert (found and found.dialect) == (change and FULL.model_copy(update=change))


def test_the_forms_of_answers_end() -> None:
    dialect, forms = FULL, list[str]()
    while change := adapted(dialect, "status 400", "response_format is unknown", REQUEST):
        dialect = change.dialect
        forms.append(dialect.answers)
    assert forms == ["json_object", "text"] and "response_format" not in body_in(dialect, REQUEST)
    while change := adapted(dialect, "status 400", "maximum context length exceeded", REQUEST):
        dialect = change.dialect
    assert dialect.most_tokens == REQUEST.max_tokens // 4


def test_a_path_is_left_out_where_nothing_is() -> None:
    at_root = first_dialect(made.settings(), "http://h:1", None)
    assert at_root.path == "/v1" and first_dialect(made.settings(), "http://h:1/v1", None).path == ""
    change = adapted(at_root, "status 404", "Not Found", REQUEST)
    assert change is not None and change.dialect.path == ""
    assert adapted(at_root, "status 404", f"The model {REQUEST.model} does not exist", REQUEST) is None


def test_what_worked_is_kept_by_address_and_model(tmp_path: Path) -> None:
    found = Dialect(answers="text", path="/v1")
    remember(tmp_path, "http://a", "m", found)
    remember(tmp_path, "http://b", "m", FULL)
    assert remembered(tmp_path, "http://a", "m") == found and remembered(tmp_path, "http://b", "m") == FULL
    assert remembered(tmp_path, "http://a", "n") is None
    (tmp_path / "endpoints.json").write_text("{")
    assert remembered(tmp_path, "http://a", "m") is None
    assert first_dialect(made.settings(answers="text"), "http://a/v1", FULL).answers == "text"
