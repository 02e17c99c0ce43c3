"""Decisions applied to posts: probability, label, margin and a mark for review, and the CSV files of them."""

from pathlib import Path

import numpy as np
import pandas as pd

from polar_pipeline.corpus.folds import scored_posts
from polar_pipeline.decision.calibration import sigmoid
from polar_pipeline.decision.class_weights import chosen_classes
from polar_pipeline.decision.decide import RATE_MATCHING
from polar_pipeline.decision.record import Decision, Decisions
from polar_pipeline.decision.strategies import Combination, MemberScores, combine, gather, scores_sha256
from polar_pipeline.decision.targets import WHOLE, class_distances, consistent_answers, target_scores
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
    names = [member.backbone for member in decision.members]
    members = gather(posts, wanted, names, decision.language) if names else []
    probabilities = _probabilities(decision, members, len(posts))
    thresholds = np.full(len(posts), decision.threshold)
    test = (posts["split"] == "test").to_numpy()
    if decision.shift_response == RATE_MATCHING and test.any():
        thresholds[test] = matching_threshold(probabilities[test], decision.positive_share)
    frame = posts[["id", "split", "fold"]].reset_index(drop=True)
    return pd.concat([frame, _judged(decision, probabilities, thresholds)], axis=1)


def predict_new(decision: Decision, logits: dict[str, Floats], posts: int) -> pd.DataFrame:
    """Apply a decision to so many new posts, each on its own: probability, prediction, margin, review.

    `logits` has one array (posts,) for the name of each member of the decision, from the final models.
    """
    members = [
        MemberScores(member.backbone, member.seeds, logits[member.name][:, None], member.head)
        for member in decision.members
    ]
    probabilities = _probabilities(decision, members, posts)
    return _judged(decision, probabilities, np.full(posts, decision.threshold))


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


def predict_targets(decisions: Decisions, posts: pd.DataFrame, scores: pd.DataFrame, card: TaskCard) -> pd.DataFrame:
    """Apply the decisions of all targets: what `predict` gives and `target`, a row per target and post, in order."""
    about = decisions.whole
    whole = None if about is None else predict(about, posts, target_scores(scores, WHOLE, card))
    tables = [predict(one, posts, target_scores(scores, one.target, card)) for one in decisions.targets]
    return _together(decisions, tables, whole)


def predict_new_targets(decisions: Decisions, logits: dict[str, dict[str, Floats]], posts: int) -> pd.DataFrame:
    """Apply the decisions of all targets to new posts, a row per target and post: as `predict_new`, and `target`.

    `logits` are by target and member, see `predict_new`.
    """
    whole = None if decisions.whole is None else predict_new(decisions.whole, logits[WHOLE], posts)
    return _together(decisions, [predict_new(one, logits[one.target], posts) for one in decisions.targets], whole)


def _together(decisions: Decisions, tables: list[pd.DataFrame], whole: pd.DataFrame | None) -> pd.DataFrame:
    """One table of those of all targets, where each depends on the others if the decisions say so."""
    if decisions.class_weights:
        probabilities = np.stack([table["probability"].to_numpy() for table in tables], axis=1)
        weights = np.array(decisions.class_weights)
        chosen, margins = chosen_classes(probabilities, weights), class_distances(probabilities, weights)
        near = margins < decisions.review_margin
        tables = [
            table.assign(prediction=(chosen == place).astype("int8"), margin=margins, review=near)
            for place, table in enumerate(tables)
        ]
    if whole is not None:
        given = np.stack([table["prediction"].to_numpy() for table in tables], axis=1)
        above = np.stack([table["margin"].to_numpy() for table in tables], axis=1) * (2 * given - 1)
        agreed = consistent_answers(given, above, whole["prediction"].to_numpy())
        tables = [table.assign(prediction=agreed[:, place].astype("int8")) for place, table in enumerate(tables)]
    named = [table.assign(target=one.target) for one, table in zip(decisions.targets, tables, strict=True)]
    found = pd.concat(named, ignore_index=True)
    return found[["target", *found.columns.drop("target")]]


def answers(predictions: pd.DataFrame, card: TaskCard) -> pd.DataFrame:
    """A row per post of the table of `predict_targets`: its labels in the card's words, probabilities, margin, review.

    The labels are in the column of the task card, or for a multilabel task in one for each label.
    """
    tables = {name: predictions[predictions["target"] == name].reset_index(drop=True) for name in card.targets}
    first = tables[card.targets[0]]
    found = first[[name for name in ("split", "id", "fold") if name in first]].copy()
    if card.kind == "binary":
        found[card.label.column] = first["prediction"].map(card.label.word)
        found["probability"] = first["probability"]
    elif card.kind == "multilabel":
        for name in card.targets:
            found[name] = tables[name]["prediction"].map(card.label.word)
    else:
        chosen = np.stack([tables[name]["prediction"].to_numpy() for name in card.targets], axis=1).argmax(axis=1)
        found[card.label.column] = [card.class_word(place) for place in chosen.tolist()]
    if card.labels:
        found = found.assign(**{f"{name}_probability": tables[name]["probability"] for name in card.targets})
    margins = np.stack([tables[name]["margin"].to_numpy() for name in card.targets], axis=1)
    reviews = np.stack([tables[name]["review"].to_numpy() for name in card.targets], axis=1)
    return found.assign(margin=margins.min(axis=1), review=np.asarray(reviews.any(axis=1)))


def answer_columns(card: TaskCard) -> list[str]:
    """The columns of `answers` that hold labels."""
    return list(card.targets) if card.kind == "multilabel" else [card.label.column]


def write_predictions(path: Path, predictions: pd.DataFrame, card: TaskCard) -> Path:
    """Write the test rows as CSV: id, labels, probabilities (six decimals), in the order of the test file. Atomic."""
    test = answers(predictions[predictions["split"] == "test"], card)
    return write_atomic(path, csv_bytes(test.drop(columns=["split", "fold", "margin", "review"])))


def write_review(path: Path, predictions: pd.DataFrame, card: TaskCard) -> Path:
    """Write the dev and test rows that a person should look at, closest to the threshold first. Atomic."""
    table = answers(predictions[predictions["split"] != "train"], card)
    flagged = table[table["review"]].sort_values(["margin", "split", "id"], kind="stable")
    return write_atomic(path, csv_bytes(flagged.drop(columns=["fold", "review"])))


def csv_bytes(frame: pd.DataFrame, header: bool = True) -> bytes:
    """A table as UTF-8 CSV with six decimals."""
    return frame.to_csv(index=False, header=header, float_format="%.6f", lineterminator="\n").encode("utf-8")


def _probabilities(decision: Decision, members: list[MemberScores], posts: int) -> Floats:
    if not members:
        return sigmoid(np.full(posts, decision.intercept))
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
