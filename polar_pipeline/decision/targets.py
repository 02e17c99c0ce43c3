"""All targets of a task: a decision about each, and what they score together. A binary task has one."""

from typing import Any

import numpy as np
import pandas as pd

from polar_pipeline.corpus.folds import scored_posts
from polar_pipeline.corpus.labels import labels_of_targets, target_labels
from polar_pipeline.decision.class_weights import choose_class_weights, chosen_classes
from polar_pipeline.decision.decide import (
    RESAMPLES,
    Judged,
    decided_rows,
    judge,
    language_seed,
    nested_evidence,
    nested_table,
)
from polar_pipeline.decision.record import Decision, Decisions, Estimate
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.intervals import metric_interval
from polar_pipeline.metrics.metric import MACRO_F1, Metric, task_metric
from polar_pipeline.metrics.scores import Floats, Ints
from polar_pipeline.settings.profile import Profile
from polar_pipeline.task.card import MAIN_HEAD, TaskCard

WHOLE = "any"  # the target of a decision about having any of several labels


def metric_of(card: TaskCard) -> Metric:
    """What the task's decisions are judged by, as 0/1 of all its targets."""
    return task_metric(card.metric, card.kind)


def target_scores(scores: pd.DataFrame, target: str, card: TaskCard) -> pd.DataFrame:
    """The rows of a scores table that score a target: those of its head, which then is the main one.

    Heads of no target score the label of the whole post, which is the target `WHOLE`, or that of a binary task.
    """
    if not card.labels:
        return scores
    if target == WHOLE:
        return scores[~scores["head"].isin(card.targets)]
    return scores[scores["head"] == target].assign(head=MAIN_HEAD)


def decide_targets(
    language: str,
    posts: pd.DataFrame,
    scores: pd.DataFrame,
    profile: Profile,
    card: TaskCard,
    adapters: dict[str, str],
    posts_fingerprint: str,
    shift_auc: float | None = None,
) -> Decisions:
    """Decide every target of one language on its out-of-fold scores; see `decide`.

    Raises InputError as that does, and when no backbone has scores of any target.
    """
    metric, settings = metric_of(card), profile.decision
    posts = scored_posts(posts).sort_values(["split", "id"]).reset_index(drop=True)
    rows, truth = decided_rows(posts, profile.seed), target_labels(posts, card)
    if card.labels and not scores["head"].isin(card.targets).any():
        raise InputError(f"no backbone has scores of the labels for {language}: add one that does to the profile.")

    def judged(target: str, label: "pd.Series[int]", own: Metric, shift: float | None) -> Judged:
        mine, known = posts.assign(label=label), target_scores(scores, target, card)
        return judge(language, mine, known, profile, adapters, posts_fingerprint, shift, target, own, rows)

    # the share of a class among test posts is not matched: the weights of the classes depend on each other
    shift = None if metric.exclusive else shift_auc
    found = [judged(name, truth[name], metric.of_one_label, shift) for name in card.targets]
    seed, decisions = language_seed(profile.seed, language), [one.decision for one in found]
    labels = np.stack([one.labels for one in found], axis=1)
    nested = np.stack([_bits(one) for one in decisions], axis=1)
    extra: dict[str, Any] = {}
    if metric.exclusive:
        weights, nested = _classes(found, labels, settings.threshold, settings.resamples, profile.seed, metric)
        decisions = [
            one.model_copy(update=nested_evidence(labels[:, at], nested[:, at], metric.of_one_label, seed))
            for at, one in enumerate(decisions)
        ]
        distances = class_distances(np.stack([one.probabilities for one in found], axis=1), weights)
        margin = float(np.quantile(distances, settings.review_share)) if settings.review_share else 0.0
        extra = {"class_weights": tuple(weights.tolist()), "review_margin": margin}
    elif settings.consistent and card.kind == "multilabel":
        whole = judged(WHOLE, posts["label"], MACRO_F1, shift_auc)
        nested = _consistent(found, whole)
        decisions = [
            one.model_copy(update=nested_evidence(labels[:, at], nested[:, at], metric, seed))
            for at, one in enumerate(decisions)
        ]
        extra = {"whole": whole.decision}
    interval = metric_interval(labels, nested, RESAMPLES, seed, metric)
    estimate = Estimate(value=interval.value, low=interval.low, high=interval.high, posts=len(labels))
    return Decisions(language=language, metric=metric.name, targets=tuple(decisions), out_of_fold=estimate, **extra)


def nested_targets(decisions: Decisions, posts: pd.DataFrame) -> pd.DataFrame:
    """The decided posts with label and nested prediction (0/1) of each target, indexed by target, split and id."""
    truth = labels_of_targets(posts, decisions.kind, tuple(one.target for one in decisions.targets))
    tables = {one.target: nested_table(one, posts.assign(label=truth[one.target])) for one in decisions.targets}
    return pd.concat(tables, names=["target"])


def class_distances(probabilities: Floats, weights: Floats) -> Floats:
    """By how much the likeliest class of each post leads the second (posts,), as shares of all weighted probabilities.

    `probabilities` are (posts, classes), `weights` (classes,).
    """
    weighted = probabilities * weights
    ranked = np.sort(weighted / np.maximum(weighted.sum(axis=1, keepdims=True), 1e-12), axis=1)
    lead: Floats = ranked[:, -1] - ranked[:, -2]
    return lead


def consistent_answers(given: Ints, distances: Floats, whole: Ints) -> Ints:
    """0/1 answers (posts, labels) that agree with `whole` (posts,): none where it is 0, at least one where it is 1.

    `distances` are those of the probabilities above the thresholds: the highest is the likeliest label.
    """
    found = np.where(whole[:, None] == 1, given, 0)
    lacking = (whole == 1) & (found.sum(axis=1) == 0)
    found[lacking, np.argmax(distances[lacking], axis=1)] = 1
    return found


def _bits(decision: Decision) -> Ints:
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(decision.nested), dtype=np.uint8))
    return bits[: decision.out_of_fold.posts].astype(int)


def _classes(
    found: list[Judged], labels: Ints, rule: str, resamples: int, seed: int, metric: Metric
) -> tuple[Floats, Ints]:
    """The weights of the classes, and nested predictions 0/1 (posts, classes) with those of the other folds."""
    codes, folds = labels.argmax(axis=1), found[0].folds
    probabilities = np.stack([one.probabilities for one in found], axis=1)
    nested = np.zeros_like(labels)
    for place, fold in enumerate(np.unique(folds)):
        inside, outside = folds != fold, np.flatnonzero(folds == fold)
        others = np.stack([one.nested[place][0] for one in found], axis=1)
        weights = choose_class_weights(rule, codes[inside], others[inside], resamples, seed, metric)
        nested[outside, chosen_classes(others[outside], weights)] = 1
    return choose_class_weights(rule, codes, probabilities, resamples, seed, metric), nested


def _consistent(found: list[Judged], whole: Judged) -> Ints:
    """Nested predictions 0/1 (posts, labels) that agree with those about having any label."""
    nested = np.zeros((len(whole.labels), len(found)), dtype=int)
    for place, fold in enumerate(np.unique(whole.folds)):
        rows = whole.folds == fold
        above = np.stack([one.nested[place][0] - one.nested[place][1] for one in found], axis=1)[rows]
        probabilities, threshold = whole.nested[place]
        nested[rows] = consistent_answers(
            (above >= 0).astype(int), above, (probabilities[rows] >= threshold).astype(int)
        )
    return nested
