"""Across languages: the report and the submission. They take the languages that are current, and name the others with
the reason.
"""

import shlex
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pandas as pd

from polar_pipeline.defs.automation import FOLLOWS_LANGUAGES, REPORT_FRESHNESS
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.metadata import metric_values, table
from polar_pipeline.defs.nodes import SHOWN, SUBMITTED
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.tracked_asset import StepContext, tracked_asset
from polar_pipeline.errors import InputError
from polar_pipeline.report.evidence import LanguageResults, Results, language_evidence, read_test_labels
from polar_pipeline.report.page import render_report
from polar_pipeline.report.submission import submission_problems, write_submission
from polar_pipeline.report.summary import summary_row
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.storage.outputs import Check
from polar_pipeline.synthesis.plan import asked_types
from polar_pipeline.tracking.base import TrackedRun


def evidence_assets(project: Project, lineage: Lineage) -> list[dg.AssetsDefinition]:
    """`benchmark_report` and `submission`."""
    profile, card = project.profile, project.card
    shared: dict[str, Any] = {"group_name": "evidence", "automation_condition": FOLLOWS_LANGUAGES}

    @tracked_asset(
        lineage,
        **shared,
        deps=SHOWN,
        kinds={"html"},
        freshness_policy=REPORT_FRESHNESS,
    )
    def benchmark_report(context: StepContext, run: TrackedRun) -> str:
        """The page that shows what every language scores, how sure that is, and what to be wary of."""
        results, absent = load_results(project)
        evidence = [
            language_evidence(found, read_test_labels(project.data, code, card), profile.report, profile.seed)
            for code, found in results.items()
        ]
        page = render_report(evidence, absent, card, profile).encode("utf-8")
        path = write_atomic(project.results.report, page)
        context.files.append(path)
        summary = summary_row(evidence)
        run.log(metrics=metric_values(summary))
        run.summary(metric_values(summary))
        run.log_artifact("report.html", page)
        rows = [{"language": item.language, card.metric: item.out_of_fold.value} for item in evidence]
        context.add_output_metadata({"report": dg.MetadataValue.url(f"/polar/report/{profile.name}/"), **summary})
        context.add_output_metadata({"absent": sorted(absent), "languages": table(rows)})
        return str(path.relative_to(project.home.root))

    def check_submission(context: StepContext, path: str) -> Iterator[Check]:  # noqa: ARG001
        present, absent = current_languages(project)
        problems = submission_problems(project.home.root / path, _predictions(project, present), card)
        yield Check(name="valid", complaint="; ".join(problems))
        yield Check(
            name="all_languages", complaint=f"{', '.join(sorted(absent))} are missing" if absent else "", warning=True
        )

    @tracked_asset(
        lineage,
        **shared,
        deps=SUBMITTED,
        kinds={"csv"},
        checks=check_submission,
        check_names={
            "valid": "The zip holds a file per language with the id and label of every test post, and nothing else.",
            "all_languages": "No language of the profile is missing.",
        },
    )
    def submission(context: StepContext, run: TrackedRun) -> str:
        """The zip for the task's scorer: one file of labels per language."""
        present, absent = current_languages(project)
        path = write_submission(project.results.submission, _predictions(project, present), card)
        context.files.append(path)
        run.log(metrics={"languages": len(present)})
        context.add_output_metadata(
            {"file": dg.MetadataValue.path(path), "languages": len(present), "absent": sorted(absent)}
        )
        return str(path.relative_to(project.home.root))

    return [benchmark_report, submission]


def load_results(project: Project) -> Results:
    """What the report shows: the results of all languages that are current, by code, and the reason for each other one.

    Raises InputError when no language is current.
    """
    present, absent = current_languages(project)
    lineage = Lineage(project)
    found = {}
    for code in present:
        posts, audit, curated, decisions, predictions = (lineage.read(asset, code) for asset in SHOWN)
        asked = asked_types(posts, project.card, project.synthesis(code))
        found[code] = LanguageResults(posts, predictions, decisions, audit, project.card, curated, asked)
    return Results(found, absent)


def current_languages(project: Project) -> tuple[list[str], dict[str, str]]:
    """Codes of the languages whose results are current, sorted, and for each of the others the reason.

    Raises InputError when there is none.
    """
    lineage = Lineage(project)
    reasons = {code: list[str]() for code in sorted(project.codes)}
    for code, found in reasons.items():
        for asset in SHOWN:
            found += [reason for reason in lineage.root_reasons(asset, code) if reason not in found]
    absent = {code: "; ".join(found) for code, found in reasons.items() if found}
    present = [code for code in reasons if code not in absent]
    if not present:
        named = "; ".join(f"{code}: {reason}" for code, reason in list(absent.items())[:3])
        more = f"; and {len(absent) - 3} more" if len(absent) > 3 else ""
        where = shlex.join(["--profile", project.source, "--home", str(project.home.root)])
        raise InputError(f"no language can be shown ({named}{more}): run `polar run --all {where}`.")
    return present, absent


def _predictions(project: Project, codes: list[str]) -> dict[str, pd.DataFrame]:
    lineage = Lineage(project)
    return {code: lineage.read("ensemble_predictions", code) for code in codes}
