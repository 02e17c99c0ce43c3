"""What a home holds of each language for one profile, for readers outside a Dagster run.

`load_results` alone knows where these files are. No measuring here, which is `evidence`.
"""

from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from polar_pipeline.backbones.base import training_fingerprint
from polar_pipeline.corpus.audit import Audit
from polar_pipeline.decision.record import Decision
from polar_pipeline.errors import InputError
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.home import Home
from polar_pipeline.storage.record import read_record
from polar_pipeline.task.card import TaskCard


class LanguageResults(NamedTuple):
    """The tables and records of one language that the report and the export are made from."""

    posts: pd.DataFrame  # as `raw_posts` holds them
    predictions: pd.DataFrame  # what `predict` made of them
    decision: Decision
    audit: Audit
    curated: pd.DataFrame | None = None  # with synthetic posts, as `deduped_posts` holds them


class Results(NamedTuple):
    """Results by language code, and for each language without current results the reason."""

    present: dict[str, LanguageResults]
    absent: dict[str, str]


def load_results(home: Home, profile: Profile, card: TaskCard, codes: Iterable[str]) -> Results:
    """Read the results of these languages. Raises InputError if no language has current ones or a file is damaged."""
    present, absent = {}, {}
    for code in sorted(codes):
        tables = {
            name: home.artifacts / name / f"{code}.parquet"
            for name in ("raw_posts", "deduped_posts", "ensemble_predictions")
        }
        records = {name: home.artifacts / name / f"{code}.json" for name in ("corpus_audit", "thresholds")}
        missing = [name for name, path in (tables | records).items() if not path.exists()]
        if missing:
            absent[code] = f"{', '.join(missing)} not materialized yet"
            continue
        found = LanguageResults(
            posts=pd.read_parquet(tables["raw_posts"]),
            curated=pd.read_parquet(tables["deduped_posts"]),
            audit=read_record(records["corpus_audit"], Audit),
            decision=read_record(records["thresholds"], Decision),
            predictions=pd.read_parquet(tables["ensemble_predictions"]),
        )
        if reason := stale_reason(found.posts, found.decision, profile, card):
            absent[code] = reason
        else:
            present[code] = found
    if not present:
        named = "; ".join(f"{code}: {reason}" for code, reason in absent.items())
        raise InputError(f"{home.root} has no results of profile {profile.name!r} ({named}): run `polar run` first.")
    return Results(present, absent)


def stale_reason(posts: pd.DataFrame, decision: Decision, profile: Profile, card: TaskCard) -> str | None:
    """Why a decision does not belong to these settings and posts, or None if it does."""
    if decision.profile_fingerprint != profile.fingerprint:
        return f"its decision was made with other settings than profile {profile.name!r} has now"
    if decision.posts_fingerprint != training_fingerprint(posts, card):
        return "its decision was made from other posts than raw_posts holds now"
    return None
