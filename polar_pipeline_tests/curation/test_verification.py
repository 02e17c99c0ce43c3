"""Translation and judge object to what they should, cost what the ledger says, and let pass what got no answer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polar_pipeline.curation.embedding import NgramEmbedder
from polar_pipeline.curation.verification import (
    Verifier,
    of_planned_label,
    read_probability,
    real_sample,
    verification_requests,
)
from polar_pipeline.endpoint.client import Endpoint
from polar_pipeline.settings.curation import CurationSettings
from polar_pipeline.settings.profile import Profile
from polar_pipeline.task.languages import language
from polar_pipeline_tests.synthesis import made
from polar_pipeline_tests.synthesis.obedient import obedient

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
    ).set_axis([7, 8, 9, 10])


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
    assert second.judged == 4 and second.probabilities.to_dict() == {7: 1.0, 8: 0.0, 9: 1.0, 10: 0.0}
    assert second.calls.dollars > 0
    # three lots to judge, and those of translated posts there and back; what was planned is what was asked
    assert (
        sum(second.calls.ended.values())
        == 3 + 2 * 3
        == len(verification_requests(posts(), made.CARD, settings, endpoint, made.make_posts().iloc[:0]))
    )
    assert look(endpoint)(posts()) == [None] * 4


def test_a_post_that_is_gone_changes_what_is_asked_of_its_own_lot_alone(endpoint: Endpoint) -> None:
    settings = CurationSettings(judge=True)
    whole, less = (
        verification_requests(table, made.CARD, settings, endpoint, made.make_posts().iloc[:0])
        for table in (posts(), posts().drop(index=8))
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
    assert second.probabilities.isna().all() and "max_requests (0)" in second.stopped


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("0.85", 0.85),
        (" .9 ", 0.9),
        ("0,85", 0.85),
        (",5", 0.5),
        ("85%", 0.85),
        ("85 %", 0.85),
        ("12,5%", 0.125),
        ("100%", 1.0),
        ("1", 1.0),
        ("0", 0.0),
        ("1.0", 1.0),
        ("0.", 0.0),
        ("1e-05", 0.00001),
    ],
)
def test_probabilities_are_read_as_people_write_them(answer: str, value: float) -> None:
    assert read_probability(answer) == pytest.approx(value)


@pytest.mark.parametrize(
    "answer",
    ["", "85", "1.01", "101%", "-0.5", "-0", "0.5.1", "1/2", "0.8 or so", "≈0.8", "high", "nan", "inf", "٠٫٨",
     "%", ".", "1e", "0.85 0.1", "polarized"],
)  # fmt: skip
def test_what_is_no_probability_for_sure_is_none(answer: str) -> None:
    assert np.isnan(read_probability(answer))


@given(st.floats(0, 1), st.integers(0, 1))
def test_a_label_has_the_probability_of_positive_or_the_rest(said: float, label: int) -> None:
    of_label = of_planned_label(pd.Series([said, np.nan]), pd.Series([label, label], dtype="Int8"))
    assert np.isnan(of_label[1]) and of_label[0] == (said if label else 1 - said)


# what the judge says, of a positive and of a negative post, and which of the two stay at 0.7
@pytest.mark.parametrize(
    ("said", "stays"),
    [
        ("0.70", (True, False)),
        ("0.69", (False, False)),
        ("0.30", (False, True)),
        ("0.31", (False, False)),
        ("70%", (True, False)),
        (0.7, (True, False)),
        (0.3, (False, True)),
        (1, (True, False)),
        (0, (False, True)),
        ("no idea", (True, True)),
        ({"probability": 0.2}, (False, True)),
    ],
)
def test_the_threshold_is_of_the_label_that_was_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: Any, stays: tuple[bool, bool]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    with obedient(lambda *_: said) as judge:
        settings = made.settings(base_url=judge.url)
        endpoint = Endpoint(language("deu"), settings, tmp_path / "ledgers", lambda _: None)
        found = look(endpoint, CurationSettings(judge=True))(posts().iloc[:2])
    assert tuple(one is None for one in found) == stays
    for objection, label in zip(found, (1, 0), strict=True):
        if objection:
            given = read_probability(str(said["probability"] if isinstance(said, dict) else said))
            assert objection == ("judge", f"a blind judge gives its label {given if label else 1 - given:.2f}")


def test_real_posts_are_judged_too_as_many_of_each_label_in_lots_of_a_fold(endpoint: Endpoint) -> None:
    real, settings = made.make_posts(), CurationSettings(judge=True, judge_real_posts=30)
    sample = real_sample(real, settings, endpoint)
    assert sample["label"].value_counts().to_dict() == {0: 15, 1: 15} and set(sample["split"]) == {"train"}
    assert (sample.groupby("request")["fold"].nunique() == 1).all() and sample.groupby("request").size().max() == 3
    shuffled = real_sample(real.sample(frac=1, random_state=0), settings, endpoint)
    assert shuffled["id"].tolist() == sample["id"].tolist()
    planned = verification_requests(posts(), made.CARD, settings, endpoint, real)
    assert len(planned) == 3 + sample["request"].nunique()
    said = look(endpoint, settings).judge_real(real)
    assert said.index.tolist() == sample.index.tolist() and said.notna().all()
    assert real_sample(real, CurationSettings(), endpoint).empty
    assert verification_requests(posts().iloc[:0], made.CARD, settings, endpoint, real) == []


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
