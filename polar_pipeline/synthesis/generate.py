"""A language's synthetic posts: planned and asked of an endpoint, perturbed offline or read, as the profile says.

What the ledger has is not asked again: an interrupted run continues where it stopped, and a finished one costs nothing.
"""

import asyncio
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from polar_pipeline.endpoint.batch import BatchRun
from polar_pipeline.endpoint.client import OnlineRun, Say
from polar_pipeline.endpoint.connection import check_endpoint
from polar_pipeline.endpoint.formats import Reply, Request, read_again
from polar_pipeline.endpoint.ledger import NO_CALLS, Account, Budget, CallSummary, Ledger
from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.from_file import LikelyParents, posts_from_file
from polar_pipeline.synthesis.halving import Halving, joined
from polar_pipeline.synthesis.perturb import perturbed_posts
from polar_pipeline.synthesis.plan import PlannedRequest, plan, prompt_pool
from polar_pipeline.synthesis.posts import posts_table, synthetic_posts
from polar_pipeline.synthesis.prompts import Style, to_request
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.languages import language as registered


class Made(NamedTuple):
    """Synthetic posts, and what became of the requests."""

    posts: pd.DataFrame
    outcomes: Counter[str]
    stopped: str  # what ended it before all was answered, as a cap does; "" when nothing did
    calls: CallSummary  # that were ever made for these posts, whenever they were paid for


class Generated(NamedTuple):
    """Replies in the order of the requests (None for those without one), and the sums."""

    replies: list[Reply | None]
    outcomes: Counter[str]  # of the requests: ok, refused, truncated, malformed, or how the last call for it failed
    stopped: str  # as in `Made`
    account: Account
    calls: CallSummary  # that were ever made for these requests


def make_posts(
    posts: pd.DataFrame,
    language: str,
    card: TaskCard,
    settings: SynthesisSettings,
    seed: int,
    ledgers: Path,
    say: Say,
    likely_parents: LikelyParents,
) -> Made:
    """The synthetic posts of one language; none where the settings want none. `posts` is a posts table with folds.

    `likely_parents` is asked of posts in files that do not say what they were made from. Raises InputError if no
    request brings posts, and for a file that is wrong.
    """
    if settings.source == "none":
        return Made(posts_table([], card), Counter(), "", NO_CALLS)
    if settings.source == "offline":
        return Made(perturbed_posts(posts, language, card, settings, seed), Counter(), "", NO_CALLS)
    if settings.source == "file":
        return Made(posts_from_file(posts, language, card, settings, likely_parents, say), Counter(), "", NO_CALLS)
    requests, halving = halvable_requests(posts, language, card, settings, seed)
    done = generate(requests, ledgers, language, settings, say, halving)
    if done.stopped:
        say(f"{language}: {done.stopped}; {done.outcomes['ok']} of {len(requests)} requests are answered")
    elif not done.outcomes["ok"]:
        how = ", ".join(f"{count} {outcome}" for outcome, count in done.outcomes.most_common())
        form = '; an answer is to be {"posts": [texts]}, as the JSON schema in response_format says'
        raise InputError(
            f"{language}: no request brought posts ({how}{form if done.outcomes['malformed'] else ''}): "
            f"change synthesis.model or base_url; after `polar synth retry --language {language}` "
            "refused and unreadable answers are asked for again."
        )
    return Made(synthetic_posts(requests, done.replies, card), done.outcomes, done.stopped, done.calls)


def planned_requests(
    posts: pd.DataFrame, language: str, card: TaskCard, settings: SynthesisSettings, seed: int
) -> list[Request]:
    """All requests of the language's plan. The same posts, settings and seed give the same keys."""
    return halvable_requests(posts, language, card, settings, seed)[0]


def halvable_requests(
    posts: pd.DataFrame, language: str, card: TaskCard, settings: SynthesisSettings, seed: int
) -> tuple[list[Request], Halving]:
    """The same, and how they are halved."""
    style, names = Style(prompt_pool(posts)), (card.label.negative, card.label.positive)

    def write(one: PlannedRequest) -> Request:
        request = to_request(one, registered(language), style, card, settings)
        return request.model_copy(update={"label_names": names})

    planned = plan(posts, card, settings, seed)
    requests = [write(one) for one in planned]
    return requests, Halving({request.key: one for request, one in zip(requests, planned, strict=True)}, write)


def asked_as(requests: list[Request], ledger: Ledger, halving: Halving) -> dict[str, list[Request]]:
    """The requests as which each is asked, by its key: itself, or its halves where an endpoint took it so."""
    called, finished = ledger.called(), ledger.outcomes().keys()
    return {request.key: halving.leaves(request, called, finished) for request in requests}


def generate(
    requests: list[Request],
    ledgers: Path,
    language: str,
    settings: SynthesisSettings,
    say: Say,
    halving: Halving | None = None,
) -> Generated:
    """Ask all requests that the ledger has no answer to. Raises InputError when it is clear that none can succeed.

    Answers that an earlier version could not read are read again, for nothing.
    """
    halving = halving or Halving()
    with Ledger(ledgers, language, Budget(settings.max_dollars, settings.max_requests)) as ledger:
        leaves = asked_as(requests, ledger, halving)
        asked = [leaf for request in requests for leaf in leaves[request.key]]
        by_key = {request.key: request for request in asked}
        if read := ledger.read_again(by_key, lambda reply: read_again(by_key[reply.key], reply)):
            say(f"{language}: {read} answers that were paid for can be read now")
        answered = ledger.outcomes(by_key).keys()
        if answered:
            before = sum(answered >= {leaf.key for leaf in leaves[request.key]} for request in requests)
            say(f"{language}: {before} of {len(requests)} requests were answered before")
        failures, stopped = dict[str, str](), ""
        if not answered >= by_key.keys() or ledger.open_batches(by_key):
            check_endpoint(settings)
            failures, stopped = asyncio.run(
                _ask(asked, ledger, settings, lambda line: say(f"{language}: {line}"), halving)
            )
            leaves = asked_as(requests, ledger, halving)
        found = ledger.replies({leaf.key for parts in leaves.values() for leaf in parts})
        replies = [joined(request, leaves[request.key], found) for request in requests]
        outcomes = Counter(
            reply.outcome
            if reply
            else next((failures[leaf.key] for leaf in leaves[request.key] if leaf.key in failures), "unanswered")
            for request, reply in zip(requests, replies, strict=True)
        )
        keys = {request.key for request in requests} | {leaf.key for parts in leaves.values() for leaf in parts}
        return Generated(replies, outcomes, stopped, ledger.account(), ledger.calls(keys))


async def _ask(
    requests: list[Request], ledger: Ledger, settings: SynthesisSettings, say: Say, halving: Halving
) -> tuple[dict[str, str], str]:
    """Ask what has no answer, as batches or one by one; what an earlier run has in a batch is waited for first.

    Returns how the last call for a request failed, by key, and what ended it before all was answered.
    """
    batches = BatchRun(requests, ledger, settings, say)
    if settings.batch:
        await batches.run()
        return batches.failures, batches.stopped
    await batches.collect()
    before = ledger.outcomes([request.key for request in requests])
    pending = [request for request in requests if request.key not in before]
    if batches.stopped or not pending:
        return batches.failures, batches.stopped
    online = OnlineRun(pending, ledger, settings, "ok" in before.values(), say, halving.halves)
    await online.run()
    return {**batches.failures, **online.failures}, online.stopped
