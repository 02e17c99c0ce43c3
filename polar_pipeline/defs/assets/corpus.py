"""Raw data as assets: the release's files, the posts of each language with their folds, and the audit of what they look
like.
"""

import warnings
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pandas as pd

from polar_pipeline.backbones.base import training_fingerprint
from polar_pipeline.corpus.audit import Audit, audit
from polar_pipeline.corpus.posts import check_posts, refuse_canaries
from polar_pipeline.decision.decide import decided_rows
from polar_pipeline.defs.io_managers import RELEASE
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.metadata import audit_metadata, frame_metadata, metric_values, split_table
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.tracked_asset import StepContext, tracked_asset
from polar_pipeline.errors import InputError
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.storage.outputs import Check
from polar_pipeline.tracking.base import TrackedRun


def release_source(project: Project) -> Any:
    """`release_files`: what lies in train/, dev/ and test/ of each language, observed by its hash."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)

        @dg.observable_source_asset(
            key=dg.AssetKey([project.profile.name, RELEASE]),
            partitions_def=dg.StaticPartitionsDefinition(project.codes),
            group_name="corpus",
            description="The files of a language in train/, dev/ and test/; their version is the hash of their bytes.",
        )
        def release_files() -> dg.DataVersionsByPartition:
            return dg.DataVersionsByPartition(
                {code: fingerprint(project.release_sha256(code)) for code in project.codes}
            )

    return release_files


def corpus_assets(project: Project, lineage: Lineage) -> list[dg.AssetsDefinition]:
    """`raw_posts` and `corpus_audit`."""
    profile, card = project.profile, project.card

    def check_raw(context: StepContext, posts: pd.DataFrame) -> Iterator[Check]:  # noqa: ARG001
        rows, folds = decided_rows(posts, profile.seed)
        classes = posts[rows].assign(fold=folds).groupby("fold")["label"].nunique()
        poor = [int(fold) for fold in classes.index[classes < 2]]
        yield Check(name="schema_and_ids", complaint=_complaint(lambda: check_posts(posts, card)))
        yield Check(name="both_classes", complaint=f"folds with one class: {poor}" if poor or classes.empty else "")
        yield Check(name="no_canary", complaint=_complaint(lambda: refuse_canaries(posts, card)))

    @tracked_asset(
        lineage,
        group_name="corpus",
        kinds={"pandas", "parquet"},
        deps=(RELEASE,),
        checks=check_raw,
        check_names={
            "schema_and_ids": "Columns and values as the schema says; ids unique within each split.",
            "both_classes": "Every fold holds posts of both classes; without folds, dev does.",
            "no_canary": "No text that marks test files is among the posts to train on.",
        },
    )
    def raw_posts(context: StepContext, run: TrackedRun) -> pd.DataFrame:
        """The posts of one language: train, dev and test, validated, with folds; labels of test are never read here."""
        language = context.partition_key
        posts = project.posts(language, say=context.log.info)
        digest = training_fingerprint(posts, card)
        run.log(params={"folds": profile.folds.count, "fit_on": profile.folds.fit_on}, metrics={"posts": len(posts)})
        run.log_data(f"posts-{language}", digest, posts)
        context.add_output_metadata({**frame_metadata(posts), "splits": split_table(posts), "fingerprint": digest})
        return posts

    def check_audit(context: StepContext, audit: Audit, **posts: pd.DataFrame) -> Iterator[Check]:  # noqa: ARG001
        limits = profile.report
        majority = max(audit.positive_train, 1 - audit.positive_train)
        shared = audit.cross_split_dev + audit.cross_split_test
        shifted = audit.shift_auc is not None and audit.shift_auc > limits.shift_auc_warning
        unbalanced = majority > limits.imbalance_warning
        found = {
            "language": audit.language_doubt,
            "shift": f"train-or-test AUC {audit.shift_auc:.3f}" if shifted else "",
            "balance": f"{majority:.1%} of the posts are of one class" if unbalanced else "",
            "cross_split_duplicates": f"{audit.cross_split_dev} training posts are in dev too, "
            f"{audit.cross_split_test} in test"
            if shared
            else "",
        }
        yield from (Check(name=name, complaint=text, warning=True) for name, text in found.items())

    @tracked_asset(
        lineage,
        group_name="corpus",
        kinds={"json"},
        checks=check_audit,
        check_names={
            "language": "The posts seem to be in the language that they are filed under.",
            "shift": "A classifier cannot tell train from test posts by their text.",
            "balance": "Neither class holds nearly all labelled posts.",
            "cross_split_duplicates": "No training post is in dev or test too.",
        },
    )
    def corpus_audit(context: StepContext, raw_posts: pd.DataFrame, run: TrackedRun) -> Audit:
        """What to know about a language's posts before trusting a score: duplicates within and across splits, scripts,
        shift.
        """
        findings = audit(raw_posts, context.partition_key, card, profile.seed)
        metadata = audit_metadata(findings)
        run.log(metrics=metric_values(metadata))
        context.add_output_metadata(metadata)
        return findings

    return [raw_posts, corpus_audit]


def _complaint(check: Any) -> str:
    """What a stage's own validation says about the stored data; a check reports it instead of raising it."""
    try:
        check()
    except InputError as error:
        return str(error)
    return ""
