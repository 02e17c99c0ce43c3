"""`polar synth plan`: what would be asked and what it would cost, before anything is sent. Takes no lock and writes nothing."""

import math
from typing import NamedTuple

import click
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from polar_pipeline.curation.embedding import LOT, CachedEmbedder, make_embedder
from polar_pipeline.curation.endpoint_embedding import API
from polar_pipeline.curation.second_look import second_look_requests
from polar_pipeline.defs.project import Project
from polar_pipeline.synthesis.answers import read_answers
from polar_pipeline.synthesis.endpoint import Endpoint
from polar_pipeline.synthesis.ledger import read_account
from polar_pipeline.synthesis.make import planned_requests
from polar_pipeline.synthesis.offline import perturbed_posts
from polar_pipeline.synthesis.plan import prompt_pool
from polar_pipeline.synthesis.prices import dollars, embedding_dollars, likely_tokens, worst_tokens
from polar_pipeline.synthesis.request import Request
from polar_pipeline.task.languages import language

_BYTES_PER_TOKEN = 3.0  # of prompts in many scripts; a rough middle, and the worst case stands beside it
_COLUMNS = (
    "requests",
    "answered",
    "useless",
    "posts to ask for",
    "second look",
    "embeddings",
    "tokens, likely",
    "$, likely",
)


class Row(NamedTuple):
    """One language's plan, or the sum of several."""

    requests: int = 0
    answered: int = 0  # in the ledger already, the useless ones among them
    useless: int = 0  # refused, unreadable or cut off: not asked again of this model at this address
    posts: int = 0  # of the requests that are not answered
    second_look: int = 0  # requests of judge and translation if every post came to them
    embeddings: int = 0  # requests of an endpoint's embedder, for real posts and new ones
    tokens: int = 0
    likely: float = 0.0
    aside: float = 0.0  # what is reserved: the worst case of one call per request

    def plus(self, other: "Row") -> "Row":
        """Both together."""
        return Row._make(one + more for one, more in zip(self, other, strict=True))


def print_plan(project: Project, codes: list[str]) -> int:
    """Requests, tokens and dollars per language; nothing is sent. Returns the exit code."""
    settings = project.profile.synthesis
    if settings.source == "none" or (settings.source == "offline" and not project.profile.curation.asks_endpoint):
        what = "makes no synthetic posts" if settings.source == "none" else "perturbs real posts on this machine"
        click.echo(
            f"profile {project.profile.name} {what} (synthesis.source: {settings.source}): no request, $ 0. "
            "synthesis.source: endpoint would have a model asked."
        )
        return 0
    total, table = Row(), _table()
    for code in codes:
        row = _row(project, code)
        total = total.plus(row)
        table.add_row(code, *_cells(row))
    table.add_section()
    table.add_row("all", *_cells(total))
    Console(width=max(Console().width, 150)).print(table)
    for line in _remarks(project, total):
        click.echo(line)
    return 0


def _row(project: Project, code: str) -> Row:
    settings = project.profile.synthesis.of(code)
    posts = project.posts(code)
    requests = _requests(project, code, posts)
    answers = read_answers(project.home.ledgers / f"{code}.jsonl")
    to_send = [request for request in requests if not answers.finished(request.key)]
    expected = _expected(project, code, posts, requests)
    look = _second_look(project, code, expected)
    likely = [likely_tokens(request, _BYTES_PER_TOKEN) for request in to_send + look]
    embedded = _embedded(project, code, [*posts["text"], *expected["text"]])
    size = sum(len(text.encode("utf-8")) for text in embedded)
    return Row(
        requests=len(requests),
        answered=len(requests) - len(to_send),
        useless=sum(answers.useless(request.key) for request in requests),
        posts=sum(len(request.labels) for request in to_send),
        second_look=len(look),
        embeddings=math.ceil(len(embedded) / LOT),
        tokens=sum(map(sum, likely)) + round(size / _BYTES_PER_TOKEN),
        likely=sum(dollars(*tokens, settings) for tokens in likely)
        + embedding_dollars(round(size / _BYTES_PER_TOKEN), settings),
        aside=sum(dollars(*worst_tokens(request), settings) for request in to_send + look)
        + embedding_dollars(size, settings),
    )


def _requests(project: Project, code: str, posts: pd.DataFrame) -> list[Request]:
    settings = project.profile.synthesis.of(code)
    if settings.source != "endpoint":
        return []
    return planned_requests(posts, code, project.card, settings, project.profile.seed)


def _expected(project: Project, code: str, posts: pd.DataFrame, requests: list[Request]) -> pd.DataFrame:
    """The plan's posts: those of an endpoint as if they were as long as the real ones, the perturbed ones as they will be."""
    settings, seed = project.profile.synthesis.of(code), project.profile.seed
    if settings.source == "offline":
        return perturbed_posts(posts, code, project.card, settings, seed)
    texts = prompt_pool(posts)["text"].tolist()
    wanted = [
        {"id": f"{request.number}_{place}", "fold": request.fold, "source": request.strategy, "request": request.key}
        for request in requests
        for place in range(len(request.labels))
    ]
    columns = ["id", "fold", "source", "request"]
    # each a text of its own, as to what was embedded before
    made = [f"{texts[place % len(texts)]} {place}" for place in range(len(wanted))]
    return pd.DataFrame(wanted, columns=columns).assign(text=made)


def _embedded(project: Project, code: str, texts: list[str]) -> list[str]:
    """The texts that an endpoint's embedder would be sent."""
    name = project.profile.curation.embedder
    endpoint = Endpoint(language(code), project.profile.synthesis, project.home.ledgers, lambda _: None)
    embedder = make_embedder(name, project.home.embeddings, endpoint)
    return embedder.new(texts) if name.startswith(API) and isinstance(embedder, CachedEmbedder) else []


def _second_look(project: Project, code: str, expected: pd.DataFrame) -> list[Request]:
    """What judge and translation would be asked about the plan's posts."""
    endpoint = Endpoint(language(code), project.profile.synthesis, project.home.ledgers, lambda _: None)
    return second_look_requests(expected, project.card, project.profile.curation, endpoint)


def _remarks(project: Project, total: Row) -> list[str]:
    """What the table does not say: retries, what a useless answer needs, and whether a cap would end it."""
    settings = project.profile.synthesis
    now = read_account(project.home.ledgers)
    spent = f"${now.settled:.4f} spent and ${now.open:.4f} reserved before"
    lines = [
        f"model {settings.model}; nothing was sent. `$, set aside` is the worst case of one call per request; an answer that "
        f"cannot be read is asked for twice, and a time-out counts in full each of {settings.attempts} times."
    ]
    if total.useless:
        lines.append(
            f"{total.useless} answers are useless and not asked for again: change synthesis.model or base_url, "
            "or let `polar synth retry` have them asked for once more."
        )
    calls = total.requests - total.answered + total.second_look + total.embeddings
    if settings.max_requests is not None and now.requests + calls > settings.max_requests:
        left = max(settings.max_requests - now.requests, 0)
        lines.append(f"synthesis.max_requests ({settings.max_requests}) would stop it after {left} more requests.")
    if settings.max_dollars is None:
        lines.append(f"no cap in dollars (synthesis.max_dollars); {spent}.")
    elif now.settled + now.open + total.likely > settings.max_dollars:
        lines.append(f"synthesis.max_dollars (${settings.max_dollars:.4f}) would probably stop it; {spent}.")
    else:
        lines.append(f"never more than ${settings.max_dollars:.4f} (synthesis.max_dollars); {spent}.")
    return lines


def _table() -> Table:
    table = Table(box=SIMPLE_HEAD, collapse_padding=True)
    for column in ("language", *_COLUMNS, "$, set aside"):
        table.add_column(column, justify="left" if column == "language" else "right", no_wrap=True)
    return table


def _cells(row: Row) -> list[str]:
    return [*(f"{count:,}" for count in row[:7]), f"{row.likely:,.4f}", f"{row.aside:,.4f}"]
