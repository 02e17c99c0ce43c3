"""Scores into decisions, and decisions into predictions."""

from typing import Any

import dagster as dg
import pandas as pd

from polar_pipeline.backbones.base import training_fingerprint
from polar_pipeline.corpus.audit import Audit
from polar_pipeline.corpus.folds import scored_posts
from polar_pipeline.decision.ensemble import decide, decided_rows
from polar_pipeline.decision.predictions import predict, write_predictions, write_review
from polar_pipeline.decision.record import Decision
from polar_pipeline.defs.metadata import decision_metadata, decision_plot, frame_metadata, metric_values
from polar_pipeline.defs.owners import OWNERS
from polar_pipeline.defs.partitions import language_partitions
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.step import StepContext
from polar_pipeline.defs.tracked import tracked_asset
from polar_pipeline.tracking.base import TrackedRun


def decision_assets(project: Project) -> list[dg.AssetsDefinition]:
    """`thresholds` and `ensemble_predictions`."""
    profile, card = project.profile, project.card
    names = [backbone.name for backbone in profile.backbones]
    score_ins = {f"{name}_scores": dg.AssetIn(f"{name}_dev_probabilities") for name in names}
    ref_ins = {f"{name}_ref": dg.AssetIn(f"{name}_adapter") for name in names}
    settings = profile.decision.model_dump(mode="json", exclude={"strategy", "shift_response"})
    shared: dict[str, Any] = {
        "partitions_def": language_partitions(profile),
        "group_name": "decision",
        "owners": OWNERS,
        "code_version": project.code_version("decision", "folds", "backbones", "decision"),
    }

    @tracked_asset(**shared, ins=score_ins | ref_ins, kinds={"numpy", "json"}, io_manager_key="decisions")
    def thresholds(
        context: StepContext, raw_posts: pd.DataFrame, corpus_audit: Audit, run: TrackedRun, **inputs: Any
    ) -> Decision:
        """How this language's scores become labels: temperatures, weights and threshold, chosen out of fold."""
        scores = pd.concat([inputs[key] for key in score_ins])
        adapters = {name: inputs[f"{name}_ref"].sha256 for name in names}
        posts_fingerprint = training_fingerprint(raw_posts, card)
        decision = decide(
            context.partition_key, raw_posts, scores, profile, adapters, posts_fingerprint, corpus_audit.shift_auc
        )
        metadata = decision_metadata(decision)
        run.log(
            params={"strategy": decision.strategy, "shift_response": decision.shift_response, **settings},
            metrics=metric_values(metadata),
        )
        context.add_output_metadata(metadata)
        return decision

    @tracked_asset(**shared, ins=score_ins, kinds={"pandas", "csv"}, io_manager_key="tables")
    def ensemble_predictions(
        context: StepContext, raw_posts: pd.DataFrame, thresholds: Decision, run: TrackedRun, **inputs: Any
    ) -> pd.DataFrame:
        """Probability, label, margin and mark for review of every post; test also as `predictions/<language>.csv`."""
        predictions = predict(thresholds, raw_posts, pd.concat([inputs[key] for key in score_ins]))
        path = write_predictions(project.home.predictions(context.partition_key), predictions, card)
        review = write_review(project.home.review(context.partition_key), predictions, card)
        posts = scored_posts(raw_posts)
        decided, _ = decided_rows(posts, profile.seed)
        test = predictions[predictions["split"] == "test"]
        run.log(metrics={"posts": len(predictions), "predicted_positive_test": float(test["prediction"].mean())})
        context.add_output_metadata(
            {
                **frame_metadata(predictions),
                "file": dg.MetadataValue.path(path),
                "review": dg.MetadataValue.path(review),
                "share_for_review": float(predictions["review"].mean()),
                "evidence": decision_plot(
                    thresholds,
                    posts["label"][decided].to_numpy(dtype=int),
                    predictions["probability"][decided].to_numpy(),
                ),
            }
        )
        return predictions

    return [thresholds, ensemble_predictions]
