"""Settings of synthetic posts: those of a language stand before those of the profile."""

import json

import pytest
from pydantic import ValidationError

from polar_pipeline.settings.curation import CurationSettings
from polar_pipeline.settings.synthesis import OtherEndpoint, SynthesisSettings
from polar_pipeline.synthesis.generate import planned_requests
from polar_pipeline.synthesis.perturb import perturbed_posts
from polar_pipeline_tests.synthesis import made

POSTS = made.make_posts()
OWN = {"khm": {"posts": 300, "shares": (0.7, 0.3, 0.0)}}


def test_a_language_has_its_own_plan_and_the_profiles_for_what_it_leaves_out() -> None:
    settings = SynthesisSettings(posts=1000, positive_share=0.4, per_language=OWN)
    assert (settings.of("khm").posts, settings.of("khm").shares) == (300, (0.7, 0.3, 0.0))
    assert settings.of("khm").positive_share == 0.4
    assert settings.of("swa") == SynthesisSettings(posts=1000, positive_share=0.4)


def test_a_language_has_its_own_share() -> None:
    settings = CurationSettings(share=0.3, per_language={"swa": {"share": 0.0}})
    assert settings.of("swa").share == 0.0
    assert settings.of("khm").share == 0.3


@pytest.mark.parametrize(
    ("per_language", "message"),
    [
        ({"khm": {"post": 3}}, "Extra inputs"),
        ({"khm": {"posts": 0}}, "greater than or equal to 1"),
        ({"khm": {"shares": (0.5, 0.5, 0.5)}}, "sum to 1"),
    ],
)
def test_mistakes_are_refused(per_language: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SynthesisSettings(per_language=per_language)


def test_a_file_needs_a_path_and_what_it_holds_depends_on_no_setting() -> None:
    with pytest.raises(ValidationError, match=r"source file needs synthesis\.path: name the file or folder"):
        SynthesisSettings(source="file")
    settings = SynthesisSettings(source="file", path="x.csv")
    assert settings.of("deu").content_settings() == {"source": "file"}  # its hash is among the sources of the asset


CHANGES = {
    "path": "other.csv",
    "posts": 66, "shares": (0.4, 0.4, 0.2), "positive_share": 0.7, "posts_per_request": 5, "examples": 3,
    "minority_only": True, "examples_by": "nearest", "model": "other",
    "base_url": "http://other:1/v1", "temperature": 0.5, "max_tokens": 300, "max_tokens_name": "max_completion_tokens",
    "batch": True, "concurrency": 3, "timeout": 7.0, "attempts": 2, "price_prompt": 9.0, "price_completion": 9.0,
    "price_batch": 0.1, "price_embedding": 9.0, "max_dollars": 0.5, "max_requests": 7,
    "per_language": {"khm": {"posts": 7}}, "answers": "text", "headers": {"X-Title": "a"}, "query": {"a": "b"},
    "key_variable": "OTHER", "judge": OtherEndpoint(model="other"), "embeddings": OtherEndpoint(model="o"),
}  # fmt: skip


@pytest.mark.parametrize("source", ["none", "offline", "endpoint"])
@pytest.mark.parametrize("name", sorted(set(SynthesisSettings.model_fields) - {"source"}))
def test_content_settings_are_those_that_change_the_posts_that_are_made(source: str, name: str) -> None:
    """A new setting has to be added to CHANGES, and to the content settings if it changes a post."""

    def made_by(settings: SynthesisSettings) -> list[str]:
        if settings.source == "offline":
            return perturbed_posts(POSTS, "deu", made.CARD, settings, 0)["text"].tolist()
        if settings.source == "none":
            return []
        return [request.key for request in planned_requests(POSTS, "deu", made.CARD, settings, 0)]

    before = made.settings(source=source, base_url="http://x:1/v1")
    after = before.model_copy(update={name: CHANGES[name]}).of("deu")
    same = made_by(before) == made_by(after)
    assert (before.of("deu").content_settings() == after.content_settings()) == same
    assert json.loads(json.dumps(after.content_settings())) == after.content_settings()


def test_content_settings_are_those_of_the_language() -> None:
    settings = SynthesisSettings(source="endpoint", per_language=OWN)
    assert settings.of("khm").content_settings()["posts"] == 300 and settings.of("khm").content_settings() != (
        settings.of("swa").content_settings()
    )
    curation = CurationSettings(share=0.3, per_language={"swa": {"share": 0.0}})
    assert curation.of("swa").content_settings()["share"] == 0.0
    assert curation.of("khm").content_settings() == CurationSettings(share=0.3).content_settings()


def test_the_temperature_of_a_verification_counts_where_there_is_one() -> None:
    for changes, same in (({}, True), ({"judge": True}, False), ({"round_trip": 0.8}, False)):
        one, other = (
            CurationSettings.model_validate({**changes, "temperature": at}).content_settings() for at in (0.0, 1.0)
        )
        assert (one == other) == same
    for name, value in {"judge_threshold": 0.9, "judge_real_posts": 10}.items():
        for judge in (True, False):
            one, other = (CurationSettings.model_validate({"judge": judge, **change}).content_settings()
                          for change in ({}, {name: value}))  # fmt: skip
            assert (one == other) != judge
    for name, value in {"near_duplicate": 0.8, "embedder": "x", "gate": False, "contradictions": "drop"}.items():
        changed = CurationSettings.model_validate({name: value}).content_settings()
        assert changed != CurationSettings().content_settings()
