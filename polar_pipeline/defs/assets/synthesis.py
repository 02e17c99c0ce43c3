"""Synthetic posts, and the posts that are trained on: real ones and those synthetic ones that curation kept."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pandas as pd

from polar_pipeline.augmentation.gate import Gate, ShareResult, cap_share, gate, with_labels
from polar_pipeline.corpus.posts import REAL
from polar_pipeline.curation.agreement import agreement_rows, agreements, judge_figures
from polar_pipeline.curation.curate import Curated, curate_by_profile, funnel, type_funnel
from polar_pipeline.curation.diversity import diversity
from polar_pipeline.curation.fold_leakage import fold_leaks, likely_parents
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.metadata import frame_metadata, table
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.tracked_asset import StepContext, tracked_asset
from polar_pipeline.endpoint.ledger import CallSummary
from polar_pipeline.storage.files import plain_name
from polar_pipeline.storage.outputs import Check
from polar_pipeline.synthesis.generate import Made, make_posts
from polar_pipeline.synthesis.plan import asked_types
from polar_pipeline.tracking.base import TrackedRun

SYNTHESIS_OPTIONS = {
    "max_dollars": dg.Field(
        dg.Noneable(float), default_value=None, description="Another cap for this run; null takes the profile's."
    )
}


def synthesis_assets(project: Project, lineage: Lineage) -> list[dg.AssetsDefinition]:
    """`synthetic_posts` and `deduped_posts`."""
    profile, card, home = project.profile, project.card, project.home

    @tracked_asset(
        lineage,
        group_name="synthesis",
        kinds={"openai", "parquet"},
        config_schema=SYNTHESIS_OPTIONS,
    )
    def synthetic_posts(context: StepContext, raw_posts: pd.DataFrame, run: TrackedRun) -> pd.DataFrame:
        """Posts that a model wrote, a perturbation made or a file holds, each with its label and fold, and with what it
        was made from.
        """
        language, say = context.partition_key, context.log.info
        settings = project.synthesis(language)
        if context.options.get("max_dollars") is not None:
            settings = settings.model_copy(update={"max_dollars": context.options["max_dollars"]})
        made = make_posts(raw_posts, language, card, settings, profile.seed, home.ledgers, say, likely_parents)
        shown = {"source"} if settings.source == "file" else {"source", "model", "posts", "temperature"}
        shown |= {"minority_only", "examples_by"} if settings.source == "endpoint" else set()
        asked = asked_types(raw_posts, card, settings)
        run.log(
            params=settings.model_dump(mode="json", include=shown),
            metrics={
                "posts": len(made.posts),
                **_call_metrics(made.calls),
                **{f"asked/{plain_name(name)}": count for name, count in asked.items()},
            },
        )
        context.incomplete = made.stopped
        context.add_output_metadata({"source": settings.source, **_made_metadata(made)})
        if asked:
            context.add_output_metadata({"asked_types": dg.MetadataValue.json(asked)})
        return made.posts

    def check_folds(context: StepContext, posts: pd.DataFrame, **upstream: pd.DataFrame) -> Iterator[Check]:  # noqa: ARG001
        yield Check(name="folds_of_parents", complaint=fold_leaks(posts))

    @tracked_asset(
        lineage,
        group_name="synthesis",
        kinds={"numpy", "parquet"},
        checks=check_folds,
        check_names={
            "folds_of_parents": "A synthetic post is of train, and so are the real posts that it was made from or was "
            "shown, all of its fold."
        },
    )
    def deduped_posts(
        context: StepContext, raw_posts: pd.DataFrame, synthetic_posts: pd.DataFrame, run: TrackedRun
    ) -> pd.DataFrame:
        """Real and synthetic posts, each kept or flagged with the stage that objected and the reason."""
        language, say = context.partition_key, context.log.info
        model = project.language_model
        reviewed = curate_by_profile(raw_posts, synthetic_posts, language, card, profile, home, say, model)
        context.incomplete = reviewed.stopped
        decided = _share(context, reviewed.table)
        curated = with_labels(cap_share(reviewed.table, decided.share), decided)
        survival = funnel(curated)
        types = type_funnel(curated, asked_types(raw_posts, card, project.synthesis(language)))
        agreed = agreement_rows(agreements(curated))
        judged = judge_figures(curated, reviewed.judged)
        varied = {
            f"{side}_{name}": value for side, one in diversity(curated).items() for name, value in one._asdict().items()
        }
        run.log(metrics=_survival_metrics(curated, survival, decided.share) | judged | varied)
        run.log(metrics=_type_metrics(types) | _agreement_metrics(agreed))
        run.log(metrics=_call_metrics(reviewed.calls) if reviewed.calls.ended else {})
        run.log(metrics={f"share_{100 * result.asked:.0f}/macro_f1": result.macro_f1 for result in decided.results})
        context.add_output_metadata(
            {
                **frame_metadata(curated),
                "synthetic_kept": int((curated["keep"] & (curated["source"] != REAL)).sum()),
                "share_allowed": decided.share,
                **_verification_metadata(reviewed),
                **judged,
                **varied,
                **{
                    name: table(rows)
                    for name, rows in (
                        ("funnel", survival),
                        ("types", types),
                        ("agreement", agreed),
                        ("shares", _share_rows(decided.results)),
                    )
                    if rows
                },
            }
        )
        return curated

    def _share(context: StepContext, curated: pd.DataFrame) -> Gate:
        """The profile's share, or with the gate what of it helps the cheapest backbone beyond the error."""
        settings = profile.curation.of(context.partition_key)
        if not settings.gate or not (curated["source"] != REAL).any():
            return Gate(settings.share)
        return gate(curated, context.partition_key, card, profile)

    return [synthetic_posts, deduped_posts]


def _made_metadata(made: Made) -> dict[str, Any]:
    return {
        **frame_metadata(made.posts),
        "dollars": made.calls.dollars,
        "dollars_reserved": made.calls.reserved,
        "stopped": made.stopped or "no",
        "requests": dg.MetadataValue.json(dict(made.outcomes)),
        "calls": dg.MetadataValue.json(dict(made.calls.ended)),
    }


def _call_metrics(calls: CallSummary) -> dict[str, float]:
    counts = {f"calls/{how.replace(' ', '_')}": float(count) for how, count in calls.ended.items()}
    return {"dollars": calls.dollars, "dollars_reserved": calls.reserved, **counts}


def _survival_metrics(curated: pd.DataFrame, survival: list[dict[str, Any]], share: float) -> dict[str, float]:
    """What became of the synthetic posts: in all, and by source, label and the stage that objected."""
    made = curated[curated["source"] != REAL]
    found: dict[str, float] = {"synthetic": len(made), "synthetic_kept": int(made["keep"].sum()), "share": share}
    for row in survival:
        which = f"{row['source']}/{row['label']}"
        stages = {name: count for name, count in row.items() if name not in ("source", "label", "made", "kept")}
        found |= {f"kept/{which}": row["kept"], **{f"flagged/{which}/{stage}": n for stage, n in stages.items()}}
    return found


def _type_metrics(types: list[dict[str, Any]]) -> dict[str, float]:
    """How many positive posts of each type were made and kept."""
    return {f"{name}/{plain_name(row['type'])}": row[name] for row in types for name in ("made", "kept")}


def _agreement_metrics(agreed: list[dict[str, Any]]) -> dict[str, float]:
    """Agreement and kappa of each pair, such as agreement/synthetic/judge_and_backbone."""
    found: dict[str, float] = {}
    for row in agreed:
        which = f"{row['posts']}/{plain_name(row['between'])}"
        found |= {f"{name}/{which}": row[name] for name in ("agreement", "kappa") if row[name] is not None}
    return found


def _share_rows(results: list[ShareResult]) -> list[dict[str, Any]]:
    """What each share did to the cheapest backbone, out of fold."""
    return [
        {
            "share": f"{result.share:.1%}",
            "posts": result.posts,
            "macro_f1": round(result.macro_f1, 4),
            "difference": f"{result.difference.value:+.4f}",
            "interval": f"{result.difference.low:+.4f} to {result.difference.high:+.4f}",
        }
        for result in results
    ]


def _verification_metadata(reviewed: Curated) -> dict[str, Any]:
    """What translation and judge cost and found; nothing where nobody was asked."""
    if not reviewed.calls.ended and not reviewed.stopped:
        return {}
    return {
        "verification_dollars": reviewed.calls.dollars,
        "verification_calls": dg.MetadataValue.json(dict(reviewed.calls.ended)),
        "verification_stopped": reviewed.stopped or "no",
    }
