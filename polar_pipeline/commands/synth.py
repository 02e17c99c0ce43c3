"""`polar synth`: what synthetic posts would cost, whether they help, and which answers may be asked for again."""

import math
from typing import NamedTuple

import click
import pandas as pd
from rich.table import Table

from polar_pipeline.augmentation.gate import Gate, ShareResult, gate
from polar_pipeline.commands.printing import new_table, print_table
from polar_pipeline.curation.curate import Curated, curate_by_profile
from polar_pipeline.curation.embedding import API, TEXTS_PER_CALL, CachedEmbedder, make_embedder
from polar_pipeline.curation.fold_leakage import likely_parents
from polar_pipeline.curation.verification import verification_requests
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.report.comparison import verdict
from polar_pipeline.synthesis.client import Endpoint
from polar_pipeline.synthesis.exceptions import USELESS
from polar_pipeline.synthesis.formats import (
    Request,
    dollars,
    embedding_dollars,
    read_again,
    worst_dollars,
    worst_tokens,
)
from polar_pipeline.synthesis.from_file import posts_from_file
from polar_pipeline.synthesis.generate import Made, make_posts, planned_requests
from polar_pipeline.synthesis.ledger import Ledger, read_account
from polar_pipeline.synthesis.perturb import perturbed_posts
from polar_pipeline.synthesis.plan import prompt_pool
from polar_pipeline.task.languages import language

_BYTES_PER_TOKEN = 3.0  # of prompts in many scripts; a rough average
_PLAN_COLUMNS = (
    "language", "requests", "answered", "useless", "posts to ask for", "verification", "embeddings", "tokens, likely",
    "$, likely", "$, set aside",
)  # fmt: skip
_WITHOUT_ENDPOINT = {
    "none": "makes no synthetic posts",
    "offline": "perturbs real posts on this machine",
    "file": "reads its synthetic posts from a file",
}
_SHARE_COLUMNS = ("language", "allowed", "share", "posts", "macro-F1", "difference", "interval", "verdict")


class PlanRow(NamedTuple):
    """One language's plan, or the sum of several."""

    requests: int = 0
    answered: int = 0  # in the ledger already, the useless ones among them
    useless: int = 0  # refused, unreadable or cut off: not asked again of this model at this address
    posts: int = 0  # of the requests that are not answered
    verification: int = 0  # requests of judge and translation if every post comes to them
    embeddings: int = 0  # requests of an endpoint's embedder, for real posts and new ones
    tokens: int = 0
    likely: float = 0.0  # dollars
    reserved: float = 0.0  # dollars in the worst case of one call per request

    def plus(self, other: "PlanRow") -> "PlanRow":
        """Both together."""
        return PlanRow._make(one + more for one, more in zip(self, other, strict=True))


def print_plan(project: Project, codes: list[str]) -> int:
    """Print requests, tokens and dollars per language. Returns the exit code. Sends and writes nothing."""
    settings = project.profile.synthesis
    what = _WITHOUT_ENDPOINT.get(settings.source)
    if what and (settings.source == "none" or not project.profile.curation.asks_endpoint):
        click.echo(
            f"profile {project.profile.name} {what} (synthesis.source: {settings.source}): no request, $ 0. "
            "synthesis.source: endpoint would have a model asked."
        )
        return 0
    table, total = new_table(_PLAN_COLUMNS), PlanRow()
    for code in codes:
        row = _row(project, code)
        total = total.plus(row)
        table.add_row(code, *_cells(row))
    table.add_section()
    table.add_row("all", *_cells(total))
    print_table(table, least=150)
    for line in _remarks(project, total):
        click.echo(line)
    return 0


def _row(project: Project, code: str) -> PlanRow:
    settings = project.synthesis(code)
    posts = project.posts(code)
    requests = (
        planned_requests(posts, code, project.card, settings, project.profile.seed)
        if settings.source == "endpoint"
        else []
    )
    with Ledger(project.home.ledgers, code, read_only=True) as ledger:
        outcomes = ledger.outcomes([request.key for request in requests])
    to_send = [request for request in requests if request.key not in outcomes]
    endpoint = Endpoint(language(code), project.profile.synthesis, project.home.ledgers, lambda _: None)
    expected = _expected(project, code, posts, requests)
    verification = verification_requests(expected, project.card, project.profile.curation, endpoint)
    embedder = make_embedder(project.profile.curation.embedder, project.home.embeddings, project.home.bases, endpoint)
    of_endpoint = isinstance(embedder, CachedEmbedder) and embedder.name.startswith(API)
    embedded = embedder.new([*posts["text"], *expected["text"]]) if of_endpoint else []  # type: ignore[attr-defined]
    size = sum(len(text.encode("utf-8")) for text in embedded)
    likely = [_likely_tokens(request) for request in to_send + verification]
    likely_embedded = round(size / _BYTES_PER_TOKEN)
    return PlanRow(
        requests=len(requests),
        answered=len(outcomes),
        useless=sum(outcome in USELESS for outcome in outcomes.values()),
        posts=sum(len(request.labels) for request in to_send),
        verification=len(verification),
        embeddings=math.ceil(len(embedded) / TEXTS_PER_CALL),
        tokens=sum(map(sum, likely)) + likely_embedded,
        likely=sum(dollars(*tokens, settings) for tokens in likely) + embedding_dollars(likely_embedded, settings),
        reserved=sum(worst_dollars(request, settings) for request in to_send + verification)
        + embedding_dollars(size, settings),
    )


def _likely_tokens(request: Request) -> tuple[int, int]:
    """Prompt and completion tokens, if half of the room for the answer is used."""
    prompt, completion = worst_tokens(request)
    return round(prompt / _BYTES_PER_TOKEN), completion // 2


def _expected(project: Project, code: str, posts: pd.DataFrame, requests: list[Request]) -> pd.DataFrame:
    """The plan's posts: an endpoint's as if they were as long as the real ones, others as they will be."""
    settings, seed = project.synthesis(code), project.profile.seed
    if settings.source == "offline":
        return perturbed_posts(posts, code, project.card, settings, seed)
    if settings.source == "file":
        return posts_from_file(posts, code, project.card, settings, likely_parents, lambda _: None)
    texts = prompt_pool(posts)["text"].tolist()
    wanted = [
        {"id": f"{request.number}_{place}", "fold": request.fold, "source": request.strategy, "request": request.key}
        for request in requests
        for place in range(len(request.labels))
    ]
    columns = ["id", "fold", "source", "request"]
    # different texts, none of which was embedded before
    made = [f"{texts[place % len(texts)]} {place}" for place in range(len(wanted))]
    return pd.DataFrame(wanted, columns=columns).assign(text=made)


def _remarks(project: Project, total: PlanRow) -> list[str]:
    """Sentences about retries, useless answers, and whether a cap would end the run."""
    settings = project.profile.synthesis
    now = read_account(project.home.ledgers)
    spent = f"${now.settled:.4f} spent and ${now.open:.4f} reserved before"
    lines = [
        f"model {settings.model}; nothing was sent. `$, set aside` is the worst case of one call per request; an "
        f"answer that cannot be read is asked for twice, and each of {settings.attempts} time-outs counts in full."
    ]
    if total.useless:
        lines.append(
            f"{total.useless} answers are useless and not asked for again: change synthesis.model or base_url, "
            "or let `polar synth retry` have them asked for once more."
        )
    calls = total.requests - total.answered + total.verification + total.embeddings
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


def _cells(row: PlanRow) -> list[str]:
    return [*(f"{count:,}" for count in row[:7]), f"{row.likely:,.4f}", f"{row.reserved:,.4f}"]


def print_evaluation(project: Project, codes: list[str]) -> int:
    """Train with and without synthetic posts, and say with an interval whether they help.

    Returns the exit code: 1 when a language has no post to train with.
    """
    profile = project.profile
    if profile.synthesis.source == "none":
        raise InputError(
            f"profile {profile.name!r} makes no synthetic posts: set synthesis.source to offline, endpoint or file."
        )
    table, closing, empty = new_table(_SHARE_COLUMNS), list[str](), 0
    try:
        for code in codes:
            posts = project.posts(code)
            settings, ledgers = project.synthesis(code), project.home.ledgers
            made = make_posts(posts, code, project.card, settings, profile.seed, ledgers, _say, likely_parents)
            curated = curate_by_profile(
                posts, made.posts, code, project.card, profile, project.home, _say, project.language_model
            )
            decided = gate(curated.table, code, project.card, profile)
            _add_rows(table, code, decided.results)
            closing.append(_closing(project, code, made, curated, decided))
            empty += not curated.usable
    finally:  # results are worth seeing even if a later language fails
        if table.row_count:
            print_table(table, least=100)
            click.echo("Intervals hold for all shares of a language together, at 95%.")
        for line in closing:
            click.echo(line)
    return 1 if empty else 0


def retry(project: Project, codes: list[str], read_again: bool, open_batches: bool) -> int:
    """Let the next run ask for useless answers again, and for what is in `open_batches`; or only read answers again.

    Returns the exit code.
    """
    for code in codes:
        if open_batches:
            _give_up_batches(project, code)
        if read_again:
            click.echo(f"{code}: {_read_again(project, code)} answers that were paid for can be read now.")
            continue
        with Ledger(project.home.ledgers, code) as ledger:
            outcomes = ledger.outcomes()
            useless = [key for key, outcome in outcomes.items() if outcome in USELESS]
            ledger.discard(useless)
        click.echo(
            f"{code}: {len(useless)} useless answers, which the next run asks for again if its plan has them."
            if outcomes
            else f"{code}: nothing was answered yet."
        )
    return 0


def _read_again(project: Project, code: str) -> int:
    """How many answers to the plan's requests the present reader gets texts out of; nothing is sent."""
    settings = project.profile.synthesis.of(code)
    requests = planned_requests(project.posts(code), code, project.card, settings, project.profile.seed)
    by_key = {request.key: request for request in requests}
    with Ledger(project.home.ledgers, code) as ledger:
        return ledger.read_again(by_key, lambda reply: read_again(by_key[reply.key], reply))


def _give_up_batches(project: Project, code: str) -> None:
    with Ledger(project.home.ledgers, code) as ledger:
        given_up = ledger.give_up_batches()
    click.echo(
        f"{code}: {given_up} requests of batches are given up: they count at their worst case, and are asked again."
        if given_up
        else f"{code}: no batch is open."
    )


def _add_rows(table: Table, code: str, results: list[ShareResult]) -> None:
    """A row per share."""
    for result in results:
        found = result.difference
        said = verdict(found).replace("B is better", "helps").replace("A is better", "hurts")
        table.add_row(
            code, f"{result.asked:.0%}", f"{result.share:.1%}", str(result.posts),
            f"{result.macro_f1:.4f}", f"{found.value:+.4f}", f"{found.low:+.4f} to {found.high:+.4f}",
            said if result.posts else "",
        )  # fmt: skip
    table.add_section()


def _closing(project: Project, code: str, made: Made, curated: Curated, decided: Gate) -> str:
    """One sentence: how many posts there were to train with, and whether they help."""
    settings, most = project.profile.synthesis.of(code), project.profile.curation.of(code).share
    asked = f"{len(made.posts)} posts read" if settings.source == "file" else f"{settings.posts} posts asked for"
    stopped = "".join(f"; {why}" for why in (made.stopped, curated.stopped) if why)
    posts = f"{code}: {curated.usable} usable of {asked}{stopped}"
    if not curated.usable:
        return f"{posts}; nothing to train with."
    if decided.share == 0:
        return f"{posts}; no share up to {most:.0%} helps beyond the error, so train without them."
    best = next(result for result in decided.results if result.share == decided.share)
    return f"{posts}; train with up to {decided.share:.0%} of them ({best.difference.value:+.4f} macro-F1 out of fold)."


def _say(line: str) -> None:
    click.echo(line, err=True)
