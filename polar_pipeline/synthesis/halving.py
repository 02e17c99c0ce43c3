"""Requests in halves: where an endpoint's context is too short for a request, it is asked as two of half the posts.

The halves of a request are the same every time, so that what was paid for is found again. Their posts keep the places
that they have in the request.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from polar_pipeline.endpoint.formats import Reply, Request
from polar_pipeline.synthesis.plan import PlannedRequest

_LEVEL = 1_000_000  # numbers of requests are smaller; those of halves count on from here, as nodes of a binary tree


@dataclass(frozen=True)
class Halving:
    """How requests are halved. Without a plan, as those of verification, they are not."""

    planned: dict[str, PlannedRequest] = field(default_factory=dict)  # by key of the request; grows with the halves
    write: Callable[[PlannedRequest], Request] | None = None

    def halves(self, request: Request) -> list[Request]:
        """The two halves of a request, or none if it is for a single post or pair."""
        planned = self.planned.get(request.key)
        size = 2 if request.strategy == "contrast" else 1
        if planned is None or self.write is None or len(planned.labels) < 2 * size:
            return []
        middle = len(planned.labels) // (2 * size) * size
        found = []
        for place, part in enumerate((slice(None, middle), slice(middle, None))):
            labels = planned.labels[part]
            # rewritten posts are those shown; others are examples, of which each half has its own
            shown = planned.shown.iloc[part] if request.strategy == "rewrite" else planned.shown.iloc[place::2]
            level, number = divmod(planned.number, _LEVEL)
            half = planned._replace(
                number=(2 * level + 1 + place) * _LEVEL + number,
                labels=labels,
                shown=shown if len(shown) else planned.shown,
            )
            found.append(self.write(half))
            self.planned[found[-1].key] = half
        return found

    def leaves(self, request: Request, called: Collection[str], finished: Collection[str]) -> list[Request]:
        """The requests as which a request is asked: itself, or its halves once one of them was.

        `called` are the keys of all requests that there were calls for, `finished` of those that need no further one.
        """
        if request.key not in called or request.key in finished:
            return [request]
        halves = self.halves(request)
        if not any(half.key in called for half in halves):
            return [request]
        return [leaf for half in halves for leaf in self.leaves(half, called, finished)]


def joined(request: Request, leaves: Collection[Request], replies: dict[str, Reply]) -> Reply | None:
    """The reply to a request, put together from those to its leaves; None if none was answered."""
    if request.key in replies and len(leaves) == 1:
        return replies[request.key]
    parts = [(leaf, replies.get(leaf.key)) for leaf in leaves]
    found = [reply for _, reply in parts if reply]
    if not found:
        return None
    texts = tuple(
        text for leaf, reply in parts for text in (reply.texts if reply and reply.texts else (None,) * len(leaf.labels))
    )
    best = next((reply for reply in found if reply.outcome == "ok"), found[-1])
    return best.model_copy(
        update={
            "key": request.key,
            "texts": texts if best.outcome == "ok" else (),
            "prompt_tokens": sum(reply.prompt_tokens for reply in found),
            "completion_tokens": sum(reply.completion_tokens for reply in found),
            "dollars": sum(reply.dollars for reply in found),
            "counted": all(reply.counted for reply in found),
        }
    )
