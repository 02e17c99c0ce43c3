"""Scores into decisions, and decisions into predictions."""

import base64
import json
from typing import Any

import dagster as dg
import pandas as pd

from polar_pipeline.backbones.base import training_fingerprint
from polar_pipeline.corpus.audit import Audit
from polar_pipeline.corpus.folds import scored_posts
from polar_pipeline.decision.ensemble import decide, decided_rows
from polar_pipeline.decision.predictions import predict, write_predictions, write_review
from polar_pipeline.decision.record import Decision
from polar_pipeline.defs.metadata import decision_metadata, frame_metadata, metric_values, picture
from polar_pipeline.defs.owners import OWNERS
from polar_pipeline.defs.partitions import language_partitions
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.step import StepContext
from polar_pipeline.defs.tracked import tracked_asset
from polar_pipeline.metrics.scores import macro_f1
from polar_pipeline.report.plots import confusion_png, decision_png
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
        run.log_data(f"posts-{context.partition_key}", posts_fingerprint, raw_posts)
        estimate = decision.out_of_fold
        run.summary(
            {"macro_f1": estimate.value, "macro_f1_low": estimate.low, "macro_f1_high": estimate.high},
            {"strategy": decision.strategy, "fingerprint": decision.profile_fingerprint[:12]},
        )
        run.log_artifact("decision.json", decision.model_dump_json(indent=2).encode())
        counts = dict(zip(("tn", "fp", "fn", "tp"), decision.confusion, strict=True))
        run.log_artifact("confusion_matrix.json", json.dumps(counts).encode())
        run.log_artifact("confusion_matrix.png", confusion_png(decision, card.label.negative, card.label.positive))
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
        run.log_data(f"posts-{context.partition_key}", thresholds.posts_fingerprint, raw_posts, "evaluation")
        labels, probabilities = posts["label"].to_numpy(), predictions["probability"].to_numpy()
        dev = (posts["split"] == "dev").to_numpy() & posts["label"].notna().to_numpy() & ~decided
        if dev.any():
            run.summary({"macro_f1_dev": macro_f1(labels[dev].astype(int), predictions["prediction"].to_numpy()[dev])})
        plot = decision_png(thresholds, labels[decided].astype(int), probabilities[decided])
        run.log_artifact("decision.png", base64.b64decode(plot))
        context.add_output_metadata(
            {
                **frame_metadata(predictions),
                "file": dg.MetadataValue.path(path),
                "review": dg.MetadataValue.path(review),
                "share_for_review": float(predictions["review"].mean()),
                "evidence": picture("threshold curve and reliability", plot),
            }
        )
        return predictions

    return [thresholds, ensemble_predictions]
