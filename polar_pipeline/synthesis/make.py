"""A language's synthetic posts, by whichever source the profile names. One function for the asset and the command line."""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from polar_pipeline.errors import InputError
from polar_pipeline.settings.synthesis import SynthesisSettings
from polar_pipeline.synthesis.answers import NO_CALLS, Calls
from polar_pipeline.synthesis.endpoint import Progress
from polar_pipeline.synthesis.generate import generate
from polar_pipeline.synthesis.offline import perturbed_posts
from polar_pipeline.synthesis.plan import plan, prompt_pool
from polar_pipeline.synthesis.posts import as_table, synthetic_posts
from polar_pipeline.synthesis.prompts import Style, request
from polar_pipeline.synthesis.request import Request
from polar_pipeline.task.card import TaskCard
from polar_pipeline.task.languages import language as registered


class Made(NamedTuple):
    """Posts, and what became of the requests."""

    posts: pd.DataFrame
    outcomes: Counter[str]
    stopped: str  # what ended it before the plan did; "" when nothing did
    calls: Calls  # that were ever made for these posts, whenever they were paid for


def planned_requests(
    posts: pd.DataFrame, language: str, card: TaskCard, settings: SynthesisSettings, seed: int
) -> list[Request]:
    """Every request of the language's plan. The same posts, settings and seed give the same keys."""
    style = Style(prompt_pool(posts))
    return [
        request(errand, registered(language), style, card, settings) for errand in plan(posts, card, settings, seed)
    ]


def make_posts(
    posts: pd.DataFrame,
    language: str,
    card: TaskCard,
    settings: SynthesisSettings,
    seed: int,
    ledgers: Path,
    progress: Progress,
) -> Made:
    """The synthetic posts of one language; none where the profile wants none."""
    if settings.source == "none":
        return Made(as_table([], card), Counter(), "", NO_CALLS)
    if settings.source == "offline":
        return Made(perturbed_posts(posts, language, card, settings, seed), Counter(), "", NO_CALLS)
    requests = planned_requests(posts, language, card, settings, seed)
    done = generate(requests, ledgers, language, settings, progress)
    if done.stopped:
        progress(f"{language}: {done.stopped}; {done.outcomes['ok']} of {len(requests)} requests are answered")
    elif not done.outcomes["ok"]:
        raise InputError(_nothing(language, done.outcomes))
    return Made(synthetic_posts(requests, done.replies, card), done.outcomes, done.stopped, done.calls)


def _nothing(language: str, outcomes: Counter[str]) -> str:
    how = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    form = (
        '; an answer is to be {"posts": [texts]}, as the JSON schema in response_format says'
        if outcomes["malformed"]
        else ""
    )
    return (
        f"{language}: no request brought posts ({how}{form}): change synthesis.model or base_url; after `polar synth retry "
        f"--language {language}` refused and unreadable answers are asked for again."
    )
