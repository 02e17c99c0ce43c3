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
from polar_pipeline.corpus.labels import target_labels
from polar_pipeline.decision.decide import CONSTANT, decided_rows
from polar_pipeline.decision.label_errors import doubtful_labels, write_label_errors
from polar_pipeline.decision.predictions import predict_targets, write_predictions, write_review
from polar_pipeline.decision.record import Decision, Decisions
from polar_pipeline.decision.targets import decide_targets, metric_of
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.metadata import decision_metadata, frame_metadata, metric_values, picture, summary_name
from polar_pipeline.defs.project import Project
from polar_pipeline.defs.tracked_asset import StepContext, tracked_asset
from polar_pipeline.metrics.metric import Metric
from polar_pipeline.report.plots import confusion_png, decision_png
from polar_pipeline.storage.files import plain_name
from polar_pipeline.storage.outputs import Check
from polar_pipeline.task.card import TaskCard
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
        checks=lambda _, decisions, **__: decision_checks(decisions, card),
        check_names=DECISION_CHECKS,
    )
    def thresholds(
        context: StepContext, raw_posts: pd.DataFrame, corpus_audit: Audit, run: TrackedRun, **inputs: Any
    ) -> Decisions:
        """How this language's scores become labels: temperatures, weights and thresholds, chosen out of fold."""
        language = context.partition_key
        scores = pd.concat([inputs[key] for key in score_ins])
        adapters = {name: inputs[f"{name}_ref"].sha256 for name in names}
        posts = training_fingerprint(raw_posts, card)
        decisions = decide_targets(language, raw_posts, scores, profile, card, adapters, posts, corpus_audit.shift_auc)
        for name in (one.target for one in decisions.targets if one.strategy == CONSTANT):
            context.log.warning(f"{language}: {name} has nothing to learn from: every post gets the same answer")
        metadata = decision_metadata(decisions, card)
        run.log(
            params={"strategy": decisions.strategy, "shift_response": decisions.shift_response, **settings},
            metrics=metric_values(metadata),
        )
        run.log_data(f"posts-{language}", posts, raw_posts)
        name, estimate = summary_name(card), decisions.out_of_fold
        run.summary(
            {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high},
            {"strategy": decisions.strategy},
        )
        run.log_artifact("decision.json", decisions.model_dump_json(indent=2).encode())
        _log_confusion(run, decisions, card)
        context.add_output_metadata(metadata)
        return decisions

    @tracked_asset(
        lineage,
        group_name="decision",
        ins=score_ins,
        kinds={"pandas", "csv"},
        checks=lambda _, found, raw_posts, thresholds, **__: prediction_checks(found, raw_posts, thresholds, card),
        check_names=PREDICTION_CHECKS,
    )
    def ensemble_predictions(
        context: StepContext, raw_posts: pd.DataFrame, thresholds: Decisions, run: TrackedRun, **inputs: Any
    ) -> pd.DataFrame:
        """Probability, label, margin and mark for review of every post; test also as `predictions/<language>.csv`."""
        scores = pd.concat([inputs[key] for key in score_ins])
        predictions = predict_targets(thresholds, raw_posts, scores, card)
        path = write_predictions(project.results.predictions(context.partition_key), predictions, card)
        review = write_review(project.results.review(context.partition_key), predictions, card)
        posts = scored_posts(raw_posts)
        decided, _ = decided_rows(posts, profile.seed)
        inside = predictions[np.tile(decided, len(card.targets))]
        doubtful = doubtful_labels(posts[decided], inside, card)
        errors = write_label_errors(project.results.label_errors(context.partition_key), doubtful)
        context.files += [path, review, errors]
        test = predictions[predictions["split"] == "test"]
        positive = {"predicted_positive_test": float(test["prediction"].mean())} if len(test) else {}
        run.log(metrics={"posts": len(posts), "doubtful_labels": len(doubtful), **positive})
        run.log_data(f"posts-{context.partition_key}", thresholds.first.posts_fingerprint, raw_posts, "evaluation")
        dev = (posts["split"] == "dev").to_numpy() & posts["label"].notna().to_numpy() & ~decided
        truth = target_labels(posts, card)
        if dev.any():
            given = predictions["prediction"].to_numpy().reshape(len(card.targets), -1).T[dev]
            value = metric_of(card).value(truth[dev].to_numpy(dtype=int), given)
            run.summary({f"{summary_name(card)}_dev": value})
        plots = _plots(thresholds, inside, truth[decided], card)
        for name, plot in plots.items():
            run.log_artifact(f"decision{_mark(name, card)}.png", base64.b64decode(plot))
        context.add_output_metadata(
            {
                **frame_metadata(predictions),
                "file": dg.MetadataValue.path(path),
                "review": dg.MetadataValue.path(review),
                "doubtful_labels": len(doubtful),
                "label_errors": dg.MetadataValue.path(errors),
                "share_for_review": float(predictions["review"].mean()),
                **{
                    f"evidence of {name}" if card.labels else "evidence": picture(
                        "threshold curve and reliability", plot
                    )
                    for name, plot in plots.items()
                },
            }
        )
        return predictions

    return [thresholds, ensemble_predictions]


def _mark(target: str, card: TaskCard) -> str:
    """What the names of a target's files end with; nothing where there is one target."""
    return f"-{plain_name(target)}" if card.labels else ""


def _log_confusion(run: TrackedRun, decisions: Decisions, card: TaskCard) -> None:
    """The counts of each target's nested predictions, as numbers and as a figure."""
    for one in decisions.targets:
        mark = _mark(one.target, card)
        counts = dict(zip(("tn", "fp", "fn", "tp"), one.confusion, strict=True))
        run.log_artifact(f"confusion_matrix{mark}.json", json.dumps(counts).encode())
        negative = f"not {one.target}" if card.labels else card.label.negative
        run.log_artifact(f"confusion_matrix{mark}.png", confusion_png(one, negative, card.shown(one.target)))


def _plots(decisions: Decisions, inside: pd.DataFrame, truth: pd.DataFrame, card: TaskCard) -> dict[str, str]:
    """Threshold curve and reliability of each target, base64 PNGs; `inside` are predictions of the decided posts."""
    found = {}
    for one in decisions.targets:
        probabilities = inside.loc[inside["target"] == one.target, "probability"].to_numpy(dtype=float)
        found[one.target] = decision_png(one, truth[one.target].to_numpy(dtype=int), probabilities, metric_of(card))
    return found


DECISION_CHECKS = {
    "finite": "Threshold, weights, temperatures and the estimate are finite numbers.",
    "above_floor": "The out-of-fold figure is above that of always giving the commoner answer.",
    "learned": "Every label has positive posts to learn from.",
}


def decision_checks(decisions: Decisions, card: TaskCard) -> Iterator[Check]:
    """Numbers that are no numbers are an error; a figure no better than a constant answer's is a warning."""
    numbers = [*decisions.class_weights, *([decisions.out_of_fold.value] if card.labels else [])]
    for one in decisions.targets:
        numbers += [one.intercept, one.threshold, one.out_of_fold.value]
        numbers += [value for member in one.members for value in (member.temperature, member.weight)]
    wrong = int((~np.isfinite(numbers)).sum())
    yield Check(name="finite", complaint=f"{wrong} numbers are not finite" if wrong else "")
    low = []
    for one in decisions.targets:
        floor = _floor(one, metric_of(card).of_one_label)
        if one.strategy != CONSTANT and one.out_of_fold.value <= floor:
            mark = f"{one.target}: " if card.labels else ""
            low.append(
                f"{mark}{card.metric} {one.out_of_fold.value:.3f} is not above {floor:.3f}, which a constant answer has"
            )
    yield Check(name="above_floor", complaint="; ".join(low), warning=True)
    constant = [one.target for one in decisions.targets if one.strategy == CONSTANT]
    text = f"every post gets the same answer for {', '.join(constant)}: too few labelled posts differ"
    yield Check(name="learned", complaint=text if constant else "", warning=True)


def _floor(decision: Decision, metric: Metric) -> float:
    """The figure of the better of both constant answers."""
    posts, positives = decision.out_of_fold.posts, round(decision.positives * decision.out_of_fold.posts)
    labels = np.repeat([0, 1], [posts - positives, positives])
    return max(metric.value(labels, np.full(posts, answer)) for answer in (0, 1))


PREDICTION_CHECKS = {
    "complete": "Exactly one prediction for every target and post that has scores, in the order of the posts.",
    "valid": "Every probability is between 0 and 1, and every label is 0 or 1.",
    "positive_share": "The share of positives on test is near that of training.",
}


def prediction_checks(
    predictions: pd.DataFrame, posts: pd.DataFrame, decisions: Decisions, card: TaskCard
) -> Iterator[Check]:
    """Missing or impossible predictions are an error; another share of positives than in training is a warning."""
    posts = scored_posts(posts)
    count = len(card.targets)
    wanted = {
        "target": np.repeat(card.targets, len(posts)).tolist(),
        "id": posts["id"].tolist() * count,
        "split": posts["split"].tolist() * count,
    }
    same = all(predictions[name].tolist() == values for name, values in wanted.items())
    text = f"{len(predictions)} predictions do not match {len(posts)} posts"
    yield Check(name="complete", complaint="" if same else text)
    wrong = int((~predictions["probability"].between(0, 1) | ~predictions["prediction"].isin((0, 1))).sum())
    yield Check(name="valid", complaint=f"{wrong} posts have no valid probability or label" if wrong else "")
    far = []
    for one in decisions.targets:
        test = predictions.loc[(predictions["split"] == "test") & (predictions["target"] == one.target), "prediction"]
        share = float(test.mean()) if len(test) else one.positives
        if abs(share - one.positives) > _MOST_SHIFT:
            what = one.target if card.labels else "positive"
            far.append(f"{share:.1%} of test are called {what}, {one.positives:.1%} of the labelled posts are")
    yield Check(name="positive_share", complaint="; ".join(far), warning=True)
