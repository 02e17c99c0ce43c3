"""Scores into decisions, and decisions into predictions."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from polar_pipeline.backbones.base import training_fingerprint
from polar_pipeline.corpus.audit import Audit
from polar_pipeline.corpus.folds import scored_posts
from polar_pipeline.decision.decide import decide, decided_rows
from polar_pipeline.decision.label_errors import label_errors, write_label_errors
from polar_pipeline.decision.predictions import predict, write_predictions, write_review
from polar_pipeline.decision.record import Decision
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.metadata import decision_metadata, frame_metadata, metric_values, picture
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.tracked_asset import StepContext, tracked_asset
from polar_pipeline.metrics.scores import macro_f1
from polar_pipeline.report.plots import confusion_png, decision_png
from polar_pipeline.storage.outputs import Check
from polar_pipeline.tracking.base import TrackedRun

_MOST_SHIFT = 0.25  # difference in the share of positives, predicted and in training, that is warned of


def decision_assets(project: Project, lineage: Lineage) -> list[dg.AssetsDefinition]:
    """`thresholds` and `ensemble_predictions`."""
    profile, card = project.profile, project.card
    names = [backbone.name for backbone in profile.backbones]
    score_ins = {f"{name}_scores": f"{name}_dev_probabilities" for name in names}
    ref_ins = {f"{name}_ref": f"{name}_adapter" for name in names}
    settings = profile.decision.model_dump(mode="json", exclude={"strategy", "shift_response"})

    @tracked_asset(
        lineage,
        group_name="decision",
        ins=score_ins | ref_ins,
        kinds={"numpy", "json"},
        checks=lambda _, decision, **__: decision_checks(decision),
        check_names=DECISION_CHECKS,
    )
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
            {"strategy": decision.strategy},
        )
        run.log_artifact("decision.json", decision.model_dump_json(indent=2).encode())
        counts = dict(zip(("tn", "fp", "fn", "tp"), decision.confusion, strict=True))
        run.log_artifact("confusion_matrix.json", json.dumps(counts).encode())
        run.log_artifact("confusion_matrix.png", confusion_png(decision, card.label.negative, card.label.positive))
        context.add_output_metadata(metadata)
        return decision

    @tracked_asset(
        lineage,
        group_name="decision",
        ins=score_ins,
        kinds={"pandas", "csv"},
        checks=lambda _, found, raw_posts, thresholds, **__: prediction_checks(found, raw_posts, thresholds),
        check_names=PREDICTION_CHECKS,
    )
    def ensemble_predictions(
        context: StepContext, raw_posts: pd.DataFrame, thresholds: Decision, run: TrackedRun, **inputs: Any
    ) -> pd.DataFrame:
        """Probability, label, margin and mark for review of every post; test also as `predictions/<language>.csv`."""
        predictions = predict(thresholds, raw_posts, pd.concat([inputs[key] for key in score_ins]))
        path = write_predictions(project.results.predictions(context.partition_key), predictions, card)
        review = write_review(project.results.review(context.partition_key), predictions, card)
        posts = scored_posts(raw_posts)
        decided, _ = decided_rows(posts, profile.seed)
        doubtful = label_errors(posts.assign(probability=predictions["probability"].to_numpy())[decided])
        errors = write_label_errors(project.results.label_errors(context.partition_key), doubtful, card)
        context.files += [path, review, errors]
        test = predictions[predictions["split"] == "test"]
        positive = {"predicted_positive_test": float(test["prediction"].mean())} if len(test) else {}
        run.log(metrics={"posts": len(predictions), "doubtful_labels": len(doubtful), **positive})
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
                "doubtful_labels": len(doubtful),
                "label_errors": dg.MetadataValue.path(errors),
                "share_for_review": float(predictions["review"].mean()),
                "evidence": picture("threshold curve and reliability", plot),
            }
        )
        return predictions

    return [thresholds, ensemble_predictions]


DECISION_CHECKS = {
    "finite": "Threshold, weights, temperatures and the estimate are finite numbers.",
    "above_floor": "The out-of-fold macro-F1 is above that of always giving the commoner answer.",
}


def decision_checks(decision: Decision) -> Iterator[Check]:
    """Numbers that are no numbers are an error; a macro-F1 no better than a constant answer's is a warning."""
    numbers = [decision.intercept, decision.threshold, decision.out_of_fold.value]
    numbers += [value for member in decision.members for value in (member.temperature, member.weight)]
    wrong = int((~np.isfinite(numbers)).sum())
    yield Check(name="finite", complaint=f"{wrong} numbers are not finite" if wrong else "")
    share = max(decision.positives, 1 - decision.positives)
    floor = share / (1 + share)  # the mean of the F1 of the commoner class, 2s / (1 + s), and 0
    low = decision.out_of_fold.value <= floor
    text = f"macro-F1 {decision.out_of_fold.value:.3f} is not above {floor:.3f}, which a constant answer has"
    yield Check(name="above_floor", complaint=text if low else "", warning=True)


PREDICTION_CHECKS = {
    "complete": "Exactly one prediction for every post that has scores, in the order of the posts.",
    "valid": "Every probability is between 0 and 1, and every label is 0 or 1.",
    "positive_share": "The share of positives on test is near that of training.",
}


def prediction_checks(predictions: pd.DataFrame, posts: pd.DataFrame, decision: Decision) -> Iterator[Check]:
    """Missing or impossible predictions are an error; another share of positives than in training is a warning."""
    posts = scored_posts(posts)
    same = (
        predictions["id"].tolist() == posts["id"].tolist() and predictions["split"].tolist() == posts["split"].tolist()
    )
    text = f"{len(predictions)} predictions do not match {len(posts)} posts"
    yield Check(name="complete", complaint="" if same else text)
    wrong = int((~predictions["probability"].between(0, 1) | ~predictions["prediction"].isin((0, 1))).sum())
    yield Check(name="valid", complaint=f"{wrong} posts have no valid probability or label" if wrong else "")
    test = predictions.loc[predictions["split"] == "test", "prediction"]
    share = float(test.mean()) if len(test) else decision.positives
    far = abs(share - decision.positives) > _MOST_SHIFT
    text = f"{share:.1%} of test are called positive, {decision.positives:.1%} of the labelled posts are"
    yield Check(name="positive_share", complaint=text if far else "", warning=True)
