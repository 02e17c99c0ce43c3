"""Across languages: the report and the submission. They take whatever languages are there and name those that are not."""

from typing import Any

import dagster as dg
import pandas as pd

from polar_pipeline.backbones.base import training_fingerprint
from polar_pipeline.corpus.audit import Audit
from polar_pipeline.decision.record import Decision
from polar_pipeline.defs.automation import FOLLOWS_LANGUAGES, REPORT_FRESHNESS
from polar_pipeline.defs.metadata import metric_values, table
from polar_pipeline.defs.owners import OWNERS
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.step import StepContext
from polar_pipeline.defs.tracked import tracked_asset
from polar_pipeline.errors import InputError
from polar_pipeline.report.evidence import language_evidence
from polar_pipeline.report.page import render_report, summary_row
from polar_pipeline.report.sealed import read_test_labels
from polar_pipeline.report.submission import write_submission
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.tracking.base import TrackedRun

Tables = dict[str, pd.DataFrame]


def evidence_assets(project: Project) -> list[dg.AssetsDefinition]:
    """`benchmark_report` and `submission`."""
    profile, card, home = project.profile, project.card, project.home
    shared: dict[str, Any] = {
        "group_name": "evidence",
        "owners": OWNERS,
        "code_version": project.code_version("report", *type(profile).model_fields),
        "automation_condition": FOLLOWS_LANGUAGES,
        "io_manager_key": "paths",
    }

    @tracked_asset(**shared, kinds={"html"}, freshness_policy=REPORT_FRESHNESS)
    def benchmark_report(
        context: StepContext,
        raw_posts: Tables,
        deduped_posts: Tables,
        corpus_audit: dict[str, Audit],
        thresholds: dict[str, Decision],
        ensemble_predictions: Tables,
        run: TrackedRun,
    ) -> str:
        """The page that shows what every language scores, how sure that is, and what to be wary of."""
        absent = _absent(project, raw_posts, thresholds, ensemble_predictions)
        present = _present(project, absent)
        evidence = [
            language_evidence(
                raw_posts[code],
                ensemble_predictions[code],
                thresholds[code],
                corpus_audit[code],
                read_test_labels(project.data, code, card),
                profile.report,
                profile.seed,
                deduped_posts.get(code),
            )
            for code in present
        ]
        page = render_report(evidence, absent, card, profile).encode("utf-8")
        write_atomic(home.report, page)
        summary = summary_row(evidence)
        run.log(metrics=metric_values(summary))
        run.summary(metric_values(summary), {"fingerprint": profile.fingerprint[:12]})
        run.log_artifact("report.html", page)
        context.add_output_metadata(
            {"report": dg.MetadataValue.url(home.report.as_uri()), "absent": sorted(absent), **summary}
            | {
                "languages": table(
                    [{"language": item.language, "macro_f1": item.out_of_fold.value} for item in evidence]
                )
            }
        )
        return str(home.report)

    @tracked_asset(**shared, kinds={"csv"})
    def submission(
        context: StepContext,
        raw_posts: Tables,
        thresholds: dict[str, Decision],
        ensemble_predictions: Tables,
        run: TrackedRun,
    ) -> str:
        """The zip for the task's scorer: one file of labels per language."""
        absent = _absent(project, raw_posts, thresholds, ensemble_predictions)
        present = _present(project, absent)
        path = write_submission(home.submission, {code: ensemble_predictions[code] for code in present}, card)
        run.log(metrics={"languages": len(present)})
        context.add_output_metadata(
            {"file": dg.MetadataValue.path(path), "languages": len(present), "absent": sorted(absent)}
        )
        return str(path)

    return [benchmark_report, submission]


def _absent(project: Project, posts: Tables, decisions: dict[str, Decision], predictions: Tables) -> dict[str, str]:
    """Languages that cannot be shown, and why: not materialized, or made from other settings or other posts."""
    reasons = {}
    for code in project.profile.codes:
        missing = [
            name
            for name, there in (("raw_posts", posts), ("thresholds", decisions), ("ensemble_predictions", predictions))
            if code not in there
        ]
        if missing:
            reasons[code] = f"{', '.join(missing)} not materialized yet"
        elif decisions[code].profile_fingerprint != project.profile.fingerprint:
            reasons[code] = f"its decision was made with other settings than profile {project.profile.name!r} has now"
        elif decisions[code].posts_fingerprint != training_fingerprint(posts[code], project.card):
            reasons[code] = "its decision was made from other posts than raw_posts holds now"
    return reasons


def _present(project: Project, absent: dict[str, str]) -> list[str]:
    present = [code for code in sorted(project.profile.codes) if code not in absent]
    if not present:
        named = "; ".join(f"{code}: {reason}" for code, reason in sorted(absent.items()))
        raise InputError(f"no language can be shown ({named}): run `polar run` for at least one of them.")
    return present
