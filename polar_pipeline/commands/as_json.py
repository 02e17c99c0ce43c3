"""What `--json` prints: the result of a command as one JSON object on standard output, for scripts.

What a person would read goes to standard error meanwhile.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import click

from polar_pipeline.decision.record import Decisions, Estimate
from polar_pipeline.defs.assets.evidence import current_languages
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.nodes import ACROSS
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.intervals import Interval
from polar_pipeline.report.comparison import Comparison, overall, verdict


@contextmanager
def only_json() -> Iterator[None]:
    """What is printed inside goes to standard error."""
    with redirect_stdout(sys.stderr):
        yield


def print_json(found: dict[str, Any]) -> None:
    """One object."""
    click.echo(json.dumps(found, ensure_ascii=False, indent=2))


def results(project: Project, codes: list[str]) -> dict[str, Any]:
    """The decisions of these languages, why others are missing, and where the files are."""
    try:
        present, absent = current_languages(project)
    except InputError:
        present, absent = [], dict.fromkeys(codes, "not current")
    lineage, made = Lineage(project), project.results
    whole = not any(lineage.why_not_current(name, None) for name in ACROSS)
    return {
        "profile": project.profile.name,
        "languages": {code: _decided(lineage.read("thresholds", code)) for code in codes if code in present},
        "missing": {code: absent[code] for code in codes if code in absent},
        "predictions": str(made.root / "predictions"),
        "report": str(made.report) if whole else None,
        "submission": str(made.submission) if whole else None,
    }


def comparison(titles: list[str], found: list[Comparison]) -> dict[str, Any]:
    """What `polar compare` says of the languages of two runs."""
    languages = {
        one.language: {"posts": one.posts, "A": one.first, "B": one.second, **_difference(one.difference)}
        for one in found
    }
    return {"A": titles[0], "B": titles[1], "languages": languages, "mean": _difference(overall(found))}


def _difference(interval: Interval) -> dict[str, Any]:
    return {"difference": interval._asdict(), "verdict": verdict(interval)}


def _decided(decisions: Decisions) -> dict[str, Any]:
    found = {"metric": decisions.metric, **_estimate(decisions.out_of_fold)}
    if len(decisions.targets) > 1:
        found["labels"] = {one.target: _estimate(one.out_of_fold) for one in decisions.targets}
    return found


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "posts": estimate.posts}
