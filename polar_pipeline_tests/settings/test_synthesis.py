"""Settings of synthetic posts: those of a language stand before those of the profile."""

import pytest
from pydantic import ValidationError

from polar_pipeline.settings.curation import CurationSettings
from polar_pipeline.settings.synthesis import SynthesisSettings

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
