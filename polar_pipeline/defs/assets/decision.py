"""Scores into decisions, and decisions into predictions."""

from typing import Any

import dagster as dg
import pandas as pd

from polar_pipeline.backbones.base import training_fingerprint
from polar_pipeline.decision.ensemble import decide, predict
from polar_pipeline.decision.predictions import write_predictions
from polar_pipeline.decision.record import Decision
from polar_pipeline.defs.metadata import decision_metadata, decision_plot, frame_metadata, metric_values
from polar_pipeline.defs.owners import OWNERS
from polar_pipeline.defs.partitions import language_partitions
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.tracked import tracked_asset
from polar_pipeline.tracking.base import TrackedRun


def decision_assets(project: Project) -> list[dg.AssetsDefinition]:
    """`thresholds` and `ensemble_predictions`."""
    profile, card = project.profile, project.card
    names = [backbone.name for backbone in profile.backbones]
    score_ins = {f"{name}_scores": dg.AssetIn(f"{name}_dev_probabilities") for name in names}
    ref_ins = {f"{name}_ref": dg.AssetIn(f"{name}_adapter") for name in names}
    shared = {
        "partitions_def": language_partitions(profile),
        "group_name": "decision",
        "owners": OWNERS,
        "code_version": project.code_version("decision", "folds", "backbones", "decision"),
    }

    @tracked_asset(**shared, ins=score_ins | ref_ins, kinds={"numpy", "json"}, io_manager_key="decisions")
    def thresholds(
        context: dg.AssetExecutionContext, raw_posts: pd.DataFrame, run: TrackedRun, **inputs: Any
    ) -> Decision:
        """How this language's scores become labels: temperatures, weights and threshold, chosen out of fold."""
        scores = pd.concat([inputs[key] for key in score_ins])
        adapters = {name: inputs[f"{name}_ref"].sha256 for name in names}
        decision = decide(
            context.partition_key, raw_posts, scores, profile, adapters, training_fingerprint(raw_posts, card)
        )
        metadata = decision_metadata(decision)
        run.log(
            params={"strategy": decision.strategy, "resamples": profile.decision.resamples},
            metrics=metric_values(metadata),
        )
        context.add_output_metadata(metadata)
        return decision

    @tracked_asset(**shared, ins=score_ins, kinds={"pandas", "csv"}, io_manager_key="tables")
    def ensemble_predictions(
        context: dg.AssetExecutionContext, raw_posts: pd.DataFrame, thresholds: Decision, run: TrackedRun, **inputs: Any
    ) -> pd.DataFrame:
        """Probability and label of every post; those of test also as `predictions/<language>.csv`."""
        predictions = predict(thresholds, raw_posts, pd.concat([inputs[key] for key in score_ins]))
        path = write_predictions(project.home.predictions(context.partition_key), predictions, card)
        decided = raw_posts["fold"].to_numpy() >= 0
        test = predictions[predictions["split"] == "test"]
        run.log(metrics={"posts": len(predictions), "predicted_positive_test": float(test["prediction"].mean())})
        context.add_output_metadata(
            {
                **frame_metadata(predictions),
                "file": dg.MetadataValue.path(path),
                "evidence": decision_plot(
                    thresholds,
                    raw_posts["label"][decided].to_numpy(dtype=int),
                    predictions["probability"][decided].to_numpy(),
                ),
            }
        )
        return predictions

    return [thresholds, ensemble_predictions]
