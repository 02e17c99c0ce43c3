"""Translation and judge object to what they should, cost what the ledger says, and let pass what got no answer."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from polar_pipeline.curation.embedding import NgramEmbedder
from polar_pipeline.curation.verification import Verifier, verification_requests
from polar_pipeline.settings.curation import CurationSettings
from polar_pipeline.settings.profile import Profile
from polar_pipeline.synthesis.client import Endpoint
from polar_pipeline.task.languages import language
from polar_pipeline_tests.synthesis import made

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[made.Running]:
    running = made.Running(tmp_path_factory.mktemp("server"), {"refusal": 0.0})
    yield running
    running.stop()


@pytest.fixture
def endpoint(server: made.Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    settings = made.settings(base_url=server.url, posts_per_request=3)
    return Endpoint(language("deu"), settings, tmp_path / "ledgers", lambda _: None)


def look(endpoint: Endpoint, settings: CurationSettings | None = None) -> Verifier:
    return Verifier(made.CARD, settings or CurationSettings(), NgramEmbedder(), endpoint)


def posts() -> pd.DataFrame:
    texts = [
        "eins ist ein guter Satz über die Stadt",
        "der Satz bleibt treu und kommt nicht zurück",
        "eins und treu",
        "null",
    ]
    frame = pd.DataFrame({"id": [f"s{place}" for place in range(4)], "text": texts, "fold": [0, 1, 1, 2]})
    return frame.assign(
        label=pd.array([1, 0, 0, 0], dtype="Int8"),
        source=["rewrite", "contrast", "direct", "contrast"],
        request=["a", "b", "b", "c"],
    )


def test_what_comes_back_the_same_is_alike_and_what_does_not_is_not(endpoint: Endpoint) -> None:
    found = look(endpoint).round_trip(posts())
    assert found[0] == pytest.approx(1, abs=1e-5) and found[3] == pytest.approx(1, abs=1e-5)
    assert found[1] < 0.8 and found[2] < 0.8


def test_the_judge_does_not_see_labels_and_is_paid_once(endpoint: Endpoint, server: made.Running) -> None:
    before = server.get("count")["calls"]
    assert look(endpoint).judge(posts()).tolist() == [1, 0, 1, 0]
    flipped = posts().assign(label=1 - posts()["label"])
    assert look(endpoint).judge(flipped).tolist() == [1, 0, 1, 0]
    assert server.get("count")["calls"] == before + 3  # one for each request that brought posts; the second time none


def test_objections_name_the_stage_and_direct_posts_are_not_translated(endpoint: Endpoint) -> None:
    settings = CurationSettings(round_trip=0.8, judge=True)
    second = look(endpoint, settings)
    found = second(posts())
    assert [objection.stage if objection else "" for objection in found] == ["", "round_trip", "judge", ""]
    assert second.agreement == 0.75 and second.calls.dollars > 0
    # three lots to judge, and those of translated posts there and back; what was planned is what was asked
    assert (
        sum(second.calls.ended.values())
        == 3 + 2 * 3
        == len(verification_requests(posts(), made.CARD, settings, endpoint))
    )
    assert look(endpoint)(posts()) == [None] * 4


def test_a_post_that_is_gone_changes_what_is_asked_of_its_own_lot_alone(endpoint: Endpoint) -> None:
    settings = CurationSettings(judge=True)
    whole, less = (
        verification_requests(table, made.CARD, settings, endpoint) for table in (posts(), posts().drop(index=1))
    )
    assert [one.key == other.key for one, other in zip(whole, less, strict=True)] == [True, False, True]


def test_without_an_answer_nothing_is_said(endpoint: Endpoint) -> None:
    broke = endpoint._replace(
        settings=endpoint.settings.model_copy(update={"max_requests": 0}), ledgers=endpoint.ledgers / "other"
    )
    assert np.isnan(look(broke).round_trip(posts())).all()
    assert look(broke).judge(posts()).isna().all()
    settings = CurationSettings(round_trip=0.8, judge=True)
    second = look(broke, settings)
    assert second(posts()) == [None] * 4
    assert second.agreement is None and "max_requests (0)" in second.stopped


def test_it_needs_an_endpoint() -> None:
    with pytest.raises(ValueError, match=r"set synthesis\.source to endpoint"):
        Profile(name="x", description="", curation=CurationSettings(judge=True))


def test_the_round_trip_needs_an_embedder_that_sees_meaning() -> None:
    asked = made.settings()
    with pytest.raises(
        ValueError, match=r"round_trip compares meaning, which embedder: ngrams does not see: set curation\.embedder"
    ):
        Profile(name="x", description="", synthesis=asked, curation=CurationSettings(round_trip=0.8))
    for settings in (CurationSettings(round_trip=0.8, embedder="api:small"), CurationSettings(judge=True)):
        assert Profile(name="x", description="", synthesis=asked, curation=settings).curation == settings
