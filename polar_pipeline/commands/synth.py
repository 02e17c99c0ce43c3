"""`polar synth`: what a plan would cost before anything is spent, and whether synthetic posts help."""

from collections.abc import Callable

import click
import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from polar_pipeline.backbones.factory import make_backbone
from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.curation.curate import curate
from polar_pipeline.curation.embedding import make_embedder
from polar_pipeline.decision.augmentation import evaluate_shares, helpful_share
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.report.comparison import verdict
from polar_pipeline.synthesis.ledger import Budget, Ledger
from polar_pipeline.synthesis.make import make_posts, planned_requests
from polar_pipeline.synthesis.prices import dollars, likely_tokens, worst_tokens
from polar_pipeline.synthesis.request import Request
from polar_pipeline.task.backbones import LinearSettings

_BYTES_PER_TOKEN = 3.0  # of prompts in many scripts; a rough middle, and the worst case stands beside it


def print_plan(project: Project, codes: list[str]) -> int:
    """Requests, tokens and dollars per language; nothing is sent. Returns the exit code."""
    settings = project.profile.synthesis
    table = _table("language", "requests", "answered", "posts", "tokens, likely", "$, likely", "$, at most")
    sums = [0.0] * 6
    for code in codes:
        requests = planned_requests(_posts(project, code), code, project.card, settings, project.profile.seed)
        open_requests = _unanswered(project, code, requests)
        likely = [likely_tokens(request, _BYTES_PER_TOKEN) for request in open_requests]
        row = [
            len(requests),
            len(requests) - len(open_requests),
            sum(len(request.labels) for request in open_requests),
            sum(map(sum, likely)),
            sum(dollars(*tokens, settings) for tokens in likely),
            sum(dollars(*worst_tokens(request), settings) for request in open_requests),
        ]
        sums = [one + other for one, other in zip(sums, row, strict=True)]
        table.add_row(code, *_cells(row))
    table.add_section()
    table.add_row("all", *_cells(sums))
    Console(width=max(Console().width, 100)).print(table)
    cap = "no cap" if settings.max_dollars is None else f"never more than ${settings.max_dollars:.2f}"
    click.echo(f"model {settings.model}, {cap} (synthesis.max_dollars); nothing was sent.")
    return 0


def print_evaluation(project: Project, codes: list[str]) -> int:
    """Train with and without synthetic posts, and say with an interval whether they help. Returns the exit code."""
    settings = project.profile
    if settings.synthesis.source == "none":
        raise InputError(
            f"profile {settings.name!r} makes no synthetic posts: set synthesis.source to offline or endpoint."
        )
    own = next((entry for entry in settings.backbones if isinstance(entry, LinearSettings)), LinearSettings())
    table = _table("language", "share", "posts", "macro-F1", "difference", "interval", "verdict")
    for code in codes:
        posts = _posts(project, code)
        made = make_posts(posts, code, project.card, settings.synthesis, settings.seed, project.home.ledgers, _say)
        embedder = make_embedder(
            settings.curation.embedder, project.home.artifacts / "embeddings", settings.synthesis.base_url
        )
        curated = curate(posts, made.posts, code, settings.curation, embedder)
        results = evaluate_shares(curated, code, project.card, settings, make_backbone(own, settings))
        for result in results:
            found = result.difference
            said = verdict(found).replace("B is better", "helps").replace("A is better", "hurts")
            table.add_row(
                code, f"{result.share:.0%}", str(result.posts), f"{result.macro_f1:.4f}", f"{found.value:+.4f}",
                f"{found.low:+.4f} to {found.high:+.4f}", said if result.posts else "",
            )  # fmt: skip
        table.add_section()
        click.echo(f"{code}: share to train with: {helpful_share(results):.0%}")
    Console(width=max(Console().width, 100)).print(table)
    return 0


def _unanswered(project: Project, code: str, requests: list[Request]) -> list[Request]:
    if not (project.home.ledgers / f"{code}.jsonl").exists():
        return requests
    with Ledger(project.home.ledgers, code, Budget(None, None)) as ledger:
        return [request for request in requests if not ledger.finished(request.key)]


def _posts(project: Project, code: str) -> pd.DataFrame:
    return assign_folds(read_posts(project.data, code, project.card), project.profile.folds, project.profile.seed)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, collapse_padding=True)
    for column in columns:
        table.add_column(column, justify="left" if column in ("language", "verdict") else "right", no_wrap=True)
    return table


def _cells(row: list[float]) -> list[str]:
    shown: list[Callable[[float], str]] = [lambda value: f"{value:,.0f}"] * 4 + [lambda value: f"{value:,.2f}"] * 2
    return [show(value) for show, value in zip(shown, row, strict=True)]
