"""Raw data as assets: the posts of each language with their folds, and the audit of what they look like."""

from typing import Any

import dagster as dg
import pandas as pd

from polar_pipeline.backbones.base import training_fingerprint
from polar_pipeline.corpus.audit import Audit, audit
from polar_pipeline.defs.metadata import audit_metadata, frame_metadata, metric_values, split_table
from polar_pipeline.defs.owners import OWNERS
from polar_pipeline.defs.partitions import language_partitions
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.step import StepContext
from polar_pipeline.defs.tracked import tracked_asset
from polar_pipeline.tracking.base import TrackedRun


def corpus_assets(project: Project) -> list[dg.AssetsDefinition]:
    """`raw_posts` and `corpus_audit`."""
    profile, card = project.profile, project.card
    shared: dict[str, Any] = {"partitions_def": language_partitions(profile), "group_name": "corpus", "owners": OWNERS}

    @tracked_asset(
        **shared,
        kinds={"pandas", "parquet"},
        io_manager_key="tables",
        code_version=project.code_version("corpus", "folds"),
    )
    def raw_posts(context: StepContext, run: TrackedRun) -> pd.DataFrame:
        """The posts of one language: train, dev and test, validated, with folds; labels of test are never read here."""
        language = context.partition_key
        posts = project.posts(language)
        digest = training_fingerprint(posts, card)
        run.log(params={"folds": profile.folds.count, "fit_on": profile.folds.fit_on}, metrics={"posts": len(posts)})
        run.log_data(f"posts-{language}", digest)
        context.add_output_metadata({**frame_metadata(posts), "splits": split_table(posts), "fingerprint": digest})
        return posts

    @tracked_asset(
        **shared, kinds={"json"}, io_manager_key="audits", code_version=project.code_version("corpus", "folds")
    )
    def corpus_audit(context: StepContext, raw_posts: pd.DataFrame, run: TrackedRun) -> Audit:
        """What to know about a language's posts before trusting a score: duplicates within and across splits, scripts, shift."""
        findings = audit(raw_posts, context.partition_key, card, profile.seed)
        metadata = audit_metadata(findings)
        run.log(metrics=metric_values(metadata))
        context.add_output_metadata(metadata)
        return findings

    return [raw_posts, corpus_audit]
