"""A decision applied to posts: probability, label, margin and a mark for review, and the CSV files of them."""

from pathlib import Path

import numpy as np
import pandas as pd

from polar_pipeline.corpus.folds import scored_posts
from polar_pipeline.decision.calibration import sigmoid
from polar_pipeline.decision.decide import RATE_MATCHING
from polar_pipeline.decision.record import Decision
from polar_pipeline.decision.strategies import Combination, MemberScores, combine, gather, scores_sha256
from polar_pipeline.decision.thresholds import matching_threshold
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.storage.files import write_atomic
from polar_pipeline.task.card import TaskCard


def predict(decision: Decision, posts: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Apply a decision: id, split, fold, probability, prediction, margin, review of the scored `posts`, in order.

    Rows with fold >= 0 carry out-of-fold probabilities. `margin` is the distance of the probability from the threshold;
    `review` marks the posts that are closer than the decision's review margin. Under rate matching, and only then, test
    has a threshold of its own: the one that calls as many positive as the decision's does out of fold.
    Raises InputError when a member's score is missing, or the scores are not those that were decided with.
    """
    _refuse_others(decision, scores)
    models = [(member.backbone, member.head, seed) for member in decision.members for seed in member.seeds]
    wanted = scores[pd.MultiIndex.from_frame(scores[["backbone", "head", "seed"]]).isin(models)]
    posts = scored_posts(posts)
    members = gather(posts, wanted, [member.backbone for member in decision.members], decision.language)
    probabilities = _probabilities(decision, members)
    thresholds = np.full(len(posts), decision.threshold)
    test = (posts["split"] == "test").to_numpy()
    if decision.shift_response == RATE_MATCHING and test.any():
        thresholds[test] = matching_threshold(probabilities[test], decision.positive_share)
    frame = posts[["id", "split", "fold"]].reset_index(drop=True)
    return pd.concat([frame, _judged(decision, probabilities, thresholds)], axis=1)


def predict_new(decision: Decision, logits: dict[str, Floats]) -> pd.DataFrame:
    """Apply a decision to new posts, each on its own: probability, prediction, margin, review.

    `logits` has one array (posts,) for the name of each member of the decision, from the final models.
    """
    members = [
        MemberScores(member.backbone, member.seeds, logits[member.name][:, None], member.head)
        for member in decision.members
    ]
    probabilities = _probabilities(decision, members)
    return _judged(decision, probabilities, np.full(len(probabilities), decision.threshold))


def note_on_new_posts(decision: Decision) -> str:
    """In what `predict_new` differs from `predict`, as a sentence; empty if in nothing.

    The share of positives among new posts may be any, and a file of one post has none: it is not matched.
    """
    if decision.shift_response != RATE_MATCHING:
        return ""
    return (
        f"{decision.language} was decided with rate matching, which sets the threshold of test from all test posts "
        f"together: new posts are judged one by one, by the out-of-fold threshold {decision.threshold:.3f} instead."
    )


def write_predictions(path: Path, predictions: pd.DataFrame, card: TaskCard) -> Path:
    """Write the test rows as CSV: id, label, probability (six decimals), in the order of the test file. Atomic."""
    test = predictions[predictions["split"] == "test"]
    labels = test["prediction"].map(card.label.word)
    frame = pd.DataFrame({"id": test["id"], card.label.column: labels, "probability": test["probability"]})
    return write_atomic(path, csv_bytes(frame))


def write_review(path: Path, predictions: pd.DataFrame, card: TaskCard) -> Path:
    """Write the dev and test rows that a person should look at, closest to the threshold first. Atomic."""
    flagged = predictions[predictions["review"] & (predictions["split"] != "train")]
    ordered = flagged.sort_values(["margin", "split", "id"], kind="stable")
    ordered = ordered.assign(**{card.label.column: ordered["prediction"].map(card.label.word)})
    return write_atomic(path, csv_bytes(ordered[["split", "id", card.label.column, "probability", "margin"]]))


def csv_bytes(frame: pd.DataFrame, header: bool = True) -> bytes:
    """A table as UTF-8 CSV with six decimals."""
    return frame.to_csv(index=False, header=header, float_format="%.6f", lineterminator="\n").encode("utf-8")


def _probabilities(decision: Decision, members: list[MemberScores]) -> Floats:
    temperatures, weights = (
        np.array([getattr(member, name) for member in decision.members]) for name in ("temperature", "weight")
    )
    return sigmoid(combine(Combination(temperatures, weights, decision.intercept), members))


def _refuse_others(decision: Decision, scores: pd.DataFrame) -> None:
    decided = sorted({member.backbone for member in decision.members})
    rows = scores[scores["backbone"].isin(decided)]
    hashes = scores_sha256(rows.assign(logit=rows["logit"].replace([np.inf, -np.inf], np.nan)))
    if others := [name for name in decided if hashes.get(name) != decision.scores.get(name)]:
        raise InputError(
            f"{decision.language} was decided with other models or scores of {', '.join(others)} than these: "
            f"materialize thresholds for {decision.language} again."
        )


def _judged(decision: Decision, probabilities: Floats, thresholds: Floats) -> pd.DataFrame:
    margins = np.abs(probabilities - thresholds)
    return pd.DataFrame(
        {
            "probability": probabilities,
            "prediction": (probabilities >= thresholds).astype("int8"),
            "margin": margins,
            "review": margins < decision.review_margin,
        }
    )
