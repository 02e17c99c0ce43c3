"""Asset checks, one step per asset and language. Blocking ones stop what lies downstream in the same run; the others warn."""

import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.backbones.base import Backbone
from polar_pipeline.corpus.audit import Audit
from polar_pipeline.corpus.folds import scored_posts
from polar_pipeline.corpus.posts import check_posts, refuse_canaries
from polar_pipeline.curation.curate import for_backbones
from polar_pipeline.curation.fold_leakage import fold_leaks
from polar_pipeline.decision.ensemble import decided_rows
from polar_pipeline.decision.soundness import unsound
from polar_pipeline.defs.partitions import language_partitions
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import BackboneSettings, LoraSettings


def raw_posts_checks(project: Project) -> dg.AssetChecksDefinition:
    """Blocking: the stored table keeps its schema, both classes are in every fold, and no canary is trained on."""
    card = project.card
    descriptions = {
        "schema_and_ids": "Columns and values as the schema says; ids unique within each split.",
        "both_classes": "Every fold holds posts of both classes; without folds, dev does.",
        "no_canary": "No text that marks test files is among the posts to train on.",
    }

    @dg.multi_asset_check(
        name="raw_posts_checks",
        specs=_specs(project, "raw_posts", descriptions, blocking=True),
        ins={"posts": dg.AssetIn("raw_posts")},
    )
    def checks(context: dg.AssetCheckExecutionContext, posts: pd.DataFrame) -> Iterator[dg.AssetCheckResult]:  # noqa: ARG001
        rows, folds = decided_rows(posts, project.profile.seed)
        decided = posts[rows].assign(fold=folds)
        classes = decided.groupby("fold")["label"].nunique()
        poor = [int(fold) for fold in classes.index[classes < 2]]
        yield _result("raw_posts", "schema_and_ids", _complaint(lambda: check_posts(posts, card)))
        yield _result("raw_posts", "both_classes", f"folds with one class: {poor}" if poor or classes.empty else "")
        yield _result("raw_posts", "no_canary", _complaint(lambda: refuse_canaries(posts, card)))

    return checks


def deduped_posts_checks(project: Project) -> dg.AssetChecksDefinition:
    """Blocking: no model can be trained on a post that was made from what it is judged on."""

    @dg.multi_asset_check(
        name="deduped_posts_checks",
        specs=_specs(
            project,
            "deduped_posts",
            {
                "folds_of_parents": "A synthetic post is of train, and so are the real posts that it was made from or was shown, all of its fold."
            },
            blocking=True,
        ),
        ins={"posts": dg.AssetIn("deduped_posts")},
    )
    def checks(context: dg.AssetCheckExecutionContext, posts: pd.DataFrame) -> Iterator[dg.AssetCheckResult]:  # noqa: ARG001
        yield _result("deduped_posts", "folds_of_parents", fold_leaks(posts))

    return checks


def scores_checks(project: Project, backbone: Backbone, settings: BackboneSettings) -> dg.AssetChecksDefinition:
    """Blocking: every post has exactly one finite score a seed, and models that were trained here are sound.

    A warning where they were imported, or constant: the decision leaves broken models out.
    """
    asset, made_by = f"{backbone.name}_dev_probabilities", f"{backbone.name}_adapter"
    root = project.home.artifacts / "adapters"
    trained = isinstance(settings, LoraSettings)
    descriptions = {
        "complete": "Exactly one score a seed for every post of every split; none for a language that was left out.",
        "finite": "No score is NaN or infinite.",
        "not_constant": "The out-of-fold scores differ from post to post.",
        "sound": "No final model collapsed, was inverted, puts all posts into one class, or falls below its folds on dev.",
    }

    @dg.multi_asset_check(
        name=f"{asset}_checks",
        specs=_specs(project, asset, descriptions, blocking=True, also=("raw_posts", "deduped_posts", made_by)),
        ins={
            "scores": dg.AssetIn(asset),
            "posts": dg.AssetIn("raw_posts"),
            "trained_on": dg.AssetIn("deduped_posts"),
            "ref": dg.AssetIn(made_by),
        },
    )
    def checks(
        context: dg.AssetCheckExecutionContext,
        scores: pd.DataFrame,
        posts: pd.DataFrame,
        trained_on: pd.DataFrame,
        ref: AdapterRef,
    ) -> Iterator[dg.AssetCheckResult]:
        seeds = scores["seed"].nunique() if backbone.speaks(context.partition_key) else 0
        posts = scored_posts(posts)
        wanted = Counter(zip(posts["split"], posts["id"], strict=True))
        got = Counter(zip(scores["split"], scores["id"], strict=True))
        whole = got == Counter({key: count * seeds for key, count in wanted.items() if seeds})
        infinite = int((~np.isfinite(scores["logit"])).sum())
        spread = float(scores.loc[scores["fold"] >= 0, "logit"].std())
        flat = bool(seeds) and spread <= 1e-6
        yield _result(
            asset, "complete", "" if whole else f"{len(scores)} scores of {seeds} seeds do not match {len(posts)} posts"
        )
        yield _result(asset, "finite", f"{infinite} scores are not finite" if infinite else "")
        yield _result(
            asset, "not_constant", f"standard deviation of the logits is {spread:.2g}" if flat else "", warn=True
        )
        # a model that was trained here can be trained again; scores from elsewhere are what they are, and are screened
        broken: list[str] = []
        if whole and seeds:
            probes = backbone.probes(ref, for_backbones(trained_on), root)
            transductive = project.profile.decision.transductive
            broken = unsound(posts, scores, context.partition_key, transductive, probes)
        yield _result(asset, "sound", "; ".join(broken), warn=not trained)

    return checks


def audit_checks(project: Project) -> dg.AssetChecksDefinition:
    """Warnings: things that a person should know before trusting this language's scores."""
    limits = project.profile.report
    descriptions = {
        "shift": "A classifier cannot tell train from test posts by their text.",
        "balance": "Neither class holds nearly all labelled posts.",
        "twins": "No training post stands in dev or test too.",
    }

    @dg.multi_asset_check(
        name="corpus_audit_checks",
        specs=_specs(project, "corpus_audit", descriptions, blocking=False),
        ins={"audit": dg.AssetIn("corpus_audit")},
    )
    def checks(context: dg.AssetCheckExecutionContext, audit: Audit) -> Iterator[dg.AssetCheckResult]:  # noqa: ARG001
        majority = max(audit.positive_train, 1 - audit.positive_train)
        twins = audit.twins_dev + audit.twins_test
        yield _result(
            "corpus_audit",
            "shift",
            f"train-or-test AUC {audit.shift_auc:.3f}" if audit.shift_auc > limits.shift_auc_warning else "",
            warn=True,
        )
        yield _result(
            "corpus_audit",
            "balance",
            f"{majority:.1%} of the posts are of one class" if majority > limits.imbalance_warning else "",
            warn=True,
        )
        yield _result(
            "corpus_audit",
            "twins",
            f"{audit.twins_dev} twins in dev, {audit.twins_test} in test" if twins else "",
            warn=True,
        )

    return checks


def _specs(
    project: Project, asset: str, descriptions: dict[str, str], *, blocking: bool, also: tuple[str, ...] = ()
) -> list[dg.AssetCheckSpec]:
    """One spec per check; `also` names further assets that the checks read."""
    partitions = language_partitions(project.profile)
    with warnings.catch_warnings():
        # without partitions a check would load all languages at once; the parameter is in preview in this release
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                name, asset=asset, description=text, blocking=blocking, partitions_def=partitions, additional_deps=also
            )
            for name, text in descriptions.items()
        ]


def _result(asset: str, name: str, complaint: str, *, warn: bool = False) -> dg.AssetCheckResult:
    severity = dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR
    return dg.AssetCheckResult(
        passed=not complaint, asset_key=asset, check_name=name, severity=severity, description=complaint or None
    )


def _complaint(check: Any) -> str:
    """What a stage's own validation says about the stored data; a check reports it instead of raising it."""
    try:
        check()
    except InputError as error:
        return str(error)
    return ""
