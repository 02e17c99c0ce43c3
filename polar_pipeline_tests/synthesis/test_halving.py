"""Requests in halves: the same ones every time, with the labels in their places, and joined to one reply again."""

import pytest

from polar_pipeline.endpoint.formats import Reply
from polar_pipeline.synthesis.generate import halvable_requests
from polar_pipeline.synthesis.halving import joined
from polar_pipeline_tests.synthesis import made

REQUESTS, HALVING = halvable_requests(made.make_posts(), "deu", made.CARD, made.settings(), 0)


def reply(key: str, texts: tuple[str, ...], outcome: str = "ok") -> Reply:
    return Reply(key=key, texts=texts, outcome=outcome, finish="stop", prompt_tokens=2, completion_tokens=1,
                 dollars=1.0, counted=True)  # fmt: skip


@pytest.mark.parametrize("strategy", ["direct", "rewrite", "contrast"])
def test_halves_have_the_labels_and_parents_of_the_whole(strategy: str) -> None:
    request = next(one for one in REQUESTS if one.strategy == strategy)
    halves = HALVING.halves(request)
    assert halves == HALVING.halves(request) and len({request.key, *(half.key for half in halves)}) == 3
    assert sum((half.labels for half in halves), ()) == request.labels
    assert {half.fold for half in halves} == {request.fold}
    assert {name for half in halves for name in half.shown} == set(request.shown)
    if strategy == "rewrite":
        assert sum((half.shown for half in halves), ()) == request.shown
    if strategy == "contrast":
        assert all(len(half.labels) % 2 == 0 for half in halves)


def test_they_end_and_no_two_are_the_same() -> None:
    found, pending = [], list(REQUESTS)
    while pending:
        found.append(pending.pop())
        pending += HALVING.halves(found[-1])
    assert len({request.key for request in found}) == len(found)
    assert min(len(request.labels) for request in found) == 1


def test_a_request_is_asked_in_halves_once_one_of_them_was() -> None:
    request = REQUESTS[0]
    one, other = HALVING.halves(request)
    assert HALVING.leaves(request, {request.key}, ()) == [request]
    assert HALVING.leaves(request, {request.key, other.key}, ()) == [one, other]
    assert HALVING.leaves(request, {request.key, other.key}, {request.key}) == [request]


def test_replies_to_halves_are_one_and_what_is_missing_leaves_its_places() -> None:
    request = REQUESTS[0]
    one, other = halves = HALVING.halves(request)
    texts = tuple(f"b{place}" for place in range(len(other.labels)))
    found = joined(request, halves, {one.key: reply(one.key, (), "refused"), other.key: reply(other.key, texts)})
    assert found is not None and found.texts == (None,) * len(one.labels) + texts
    assert (found.key, found.outcome, found.dollars, found.prompt_tokens) == (request.key, "ok", 2.0, 4)
    assert joined(request, halves, {}) is None
