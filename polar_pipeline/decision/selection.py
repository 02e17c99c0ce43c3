"""How a label is decided, chosen on out-of-fold scores alone, and what each part of the choice is worth.

The profile's strategy was best over all languages. A language departs from it only for a strategy whose lead on its
own posts, cross-fitted, is beyond the error, corrected for the number of strategies (Bonferroni); among those, the
simplest within one standard error of the best is taken (Breiman et al. 1984, section 3.4.3). The nested estimate
repeats all choices without each fold in turn, so that choosing does not make it optimistic (Cawley & Talbot 2010).
Labels of test are never used.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from polar_pipeline.decision.calibration import sigmoid
from polar_pipeline.decision.record import Candidate
from polar_pipeline.decision.strategies import (
    SIMPLEX,
    Combination,
    MemberScores,
    combine,
    fit_combination,
    fit_temperatures,
    strategies,
)
from polar_pipeline.decision.thresholds import ARGMAX, BAGGED, RULES, Threshold, choose_threshold
from polar_pipeline.metrics.intervals import paired_interval, paired_resamples
from polar_pipeline.metrics.metric import MACRO_F1, Metric
from polar_pipeline.metrics.scores import Floats, Ints
from polar_pipeline.settings.decision import DecisionSettings

_DIFFERENCE_RESAMPLES = 1000
_CHANCE = 0.05  # of a departure where no strategy is better; half of it is on the side of a lead


class Fitted(NamedTuple):
    """A strategy, what was fitted for it, and the candidates that it was chosen from."""

    strategy: str
    combination: Combination
    threshold: Threshold
    candidates: tuple[Candidate, ...]

    def probabilities(self, members: list[MemberScores]) -> Floats:
        """Calibrated probabilities (posts,)."""
        return sigmoid(combine(self.combination, members))


def fit(
    labels: Ints,
    folds: Ints,
    members: list[MemberScores],
    settings: DecisionSettings,
    seed: int,
    metric: Metric = MACRO_F1,
) -> Fitted:
    """Choose a strategy on these labelled posts and fit it to all of them. `labels` 0/1 and `folds`, both (posts,)."""
    strategy = _default(members, settings)
    candidates: tuple[Candidate, ...] = ()
    if settings.departures and len(np.unique(folds)) > 1:  # one fold leaves nothing to compare on
        candidates, decided = compare(labels, folds, members, settings, seed, metric)
        strategy = departure(labels, decided, strategy, seed, metric)
    combination = fit_combination(strategy, labels, members)
    probabilities = sigmoid(combine(combination, members))
    threshold = choose_threshold(settings.threshold, labels, probabilities, settings.resamples, seed, metric.measure)
    return Fitted(strategy, combination, threshold, candidates)


def nested_fits(
    labels: Ints,
    folds: Ints,
    members: list[MemberScores],
    settings: DecisionSettings,
    seed: int,
    metric: Metric = MACRO_F1,
) -> list[Fitted]:
    """What `fit` makes of the other folds, for each fold in ascending order: of their labels and out-of-fold logits.

    A fold's labels thus choose no weight, temperature, strategy or threshold that it is judged by. They are not without
    any trace: the other folds' logits come from models that were trained on this fold too, as is usual in stacking.
    """
    others = [folds != fold for fold in np.unique(folds)]
    return [
        fit(labels[rows], folds[rows], [member.rows(rows) for member in members], settings, seed, metric)
        for rows in others
    ]


def nested_predictions(
    labels: Ints,
    folds: Ints,
    members: list[MemberScores],
    settings: DecisionSettings,
    seed: int,
    metric: Metric = MACRO_F1,
) -> Ints:
    """Each fold decided by what `nested_fits` makes of the others: 0/1 (posts,)."""
    return held_out_predictions(folds, members, nested_fits(labels, folds, members, settings, seed, metric))


def held_out_predictions(folds: Ints, members: list[MemberScores], fits: list[Fitted]) -> Ints:
    """The predictions of `nested_predictions`, where the fits are known already."""
    predictions = np.zeros(len(folds), dtype=int)
    for fold, fitted in zip(np.unique(folds), fits, strict=True):
        held_out = folds == fold
        probabilities = fitted.probabilities([member.rows(held_out) for member in members])
        predictions[held_out] = probabilities >= fitted.threshold.value
    return predictions


def cross_fitted(
    strategy: str,
    labels: Ints,
    folds: Ints,
    members: list[MemberScores],
    rule: str = ARGMAX,
    resamples: int = 1,
    seed: int = 0,
    temperatures: Floats | None = None,
    metric: Metric = MACRO_F1,
) -> Ints:
    """Predictions 0/1 (posts,) of one strategy: weights, temperatures and threshold of each fold from the others.

    `temperatures` are those that `_temperatures` gives, where they are known already.
    """
    predictions = np.zeros(len(labels), dtype=int)
    temperatures = _temperatures(labels, folds, members) if temperatures is None else temperatures
    for fold, fitted in zip(np.unique(folds), temperatures, strict=True):
        held_out = folds == fold
        inside, outside = [m.rows(~held_out) for m in members], [m.rows(held_out) for m in members]
        combination = fit_combination(strategy, labels[~held_out], inside, fitted)
        probabilities = sigmoid(combine(combination, inside))
        threshold = choose_threshold(rule, labels[~held_out], probabilities, resamples, seed, metric.measure)
        predictions[held_out] = sigmoid(combine(combination, outside)) >= threshold.value
    return predictions


def _temperatures(labels: Ints, folds: Ints, members: list[MemberScores]) -> Floats:
    """The temperatures (folds, members) from all folds but one."""
    outside = [folds != fold for fold in np.unique(folds)]
    return np.stack([fit_temperatures(labels[rows], [member.rows(rows) for member in members]) for rows in outside])


def compare(
    labels: Ints,
    folds: Ints,
    members: list[MemberScores],
    settings: DecisionSettings,
    seed: int,
    metric: Metric = MACRO_F1,
) -> tuple[tuple[Candidate, ...], dict[str, Ints]]:
    """Every strategy beside the profile's, from simple to rich, and its cross-fitted predictions by name."""
    rule, known = _quick_rule(settings), _temperatures(labels, folds, members)
    decided = {
        strategy: cross_fitted(strategy, labels, folds, members, rule, temperatures=known, metric=metric)
        for strategy in strategies(members)
    }
    reference = decided[_default(members, settings)]
    return tuple(_candidate(name, labels, found, reference, seed, metric) for name, found in decided.items()), decided


def departure(labels: Ints, decided: dict[str, Ints], default: str, seed: int, metric: Metric = MACRO_F1) -> str:
    """The strategy that decides: the default, or else the simplest that is beyond the error better and as good as any.

    `decided` are the predictions 0/1 (posts,) of each strategy, from simple to rich.
    """
    values = {name: metric.value(labels, predictions) for name, predictions in decided.items()}

    def error(first: str, second: str) -> float:
        return float(
            paired_resamples(labels, decided[first], decided[second], _DIFFERENCE_RESAMPLES, seed, metric).std()
        )

    # of many strategies that are as good as the default, some would often be beyond the error of one comparison
    limit = NormalDist().inv_cdf(1 - _CHANCE / 2 / max(len(decided) - 1, 1))
    ahead = [name for name in decided if values[name] - values[default] > limit * error(name, default)]
    if not ahead:
        return default
    best = max(ahead, key=lambda name: values[name])
    return next(name for name in ahead if values[best] - values[name] <= error(best, name))  # the best itself is


def without_each(
    strategy: str,
    labels: Ints,
    folds: Ints,
    members: list[MemberScores],
    settings: DecisionSettings,
    seed: int,
    metric: Metric = MACRO_F1,
) -> tuple[Candidate, ...]:
    """The strategy without each member in turn: negative where the member helps. Empty for a single member.

    For readers of the report only: nothing is decided by these figures.
    """
    if strategy in {member.name for member in members}:
        return ()
    rule, known = _quick_rule(settings), _temperatures(labels, folds, members)
    whole = cross_fitted(strategy, labels, folds, members, rule, temperatures=known, metric=metric)
    found = []
    for place, member in enumerate(members):
        rest = [other for other in members if other is not member]
        left = strategy if strategy in strategies(rest) else rest[0].name
        others = np.delete(known, place, axis=1)
        decided = cross_fitted(left, labels, folds, rest, rule, temperatures=others, metric=metric)
        found.append(_candidate(member.name, labels, decided, whole, seed, metric))
    return tuple(found)


def each_rule(
    strategy: str,
    labels: Ints,
    folds: Ints,
    members: list[MemberScores],
    settings: DecisionSettings,
    seed: int,
    metric: Metric = MACRO_F1,
) -> tuple[Candidate, ...]:
    """The strategy with each threshold rule, beside the profile's. For readers only, like `without_each`."""
    decided = {
        rule: cross_fitted(strategy, labels, folds, members, rule, settings.resamples, seed, metric=metric)
        for rule in RULES
    }
    reference = decided[settings.threshold]
    return tuple(
        _candidate(rule, labels, predictions, reference, seed, metric) for rule, predictions in decided.items()
    )


def _candidate(name: str, labels: Ints, predictions: Ints, reference: Ints, seed: int, metric: Metric) -> Candidate:
    difference = paired_interval(labels, predictions, reference, _DIFFERENCE_RESAMPLES, seed, metric=metric)
    return Candidate(
        name=name,
        value=metric.value(labels, predictions),
        difference=difference.value,
        difference_low=difference.low,
        difference_high=difference.high,
    )


def _default(members: list[MemberScores], settings: DecisionSettings) -> str:
    """The profile's strategy; where its backbone does not know the language, simplex, or the only backbone."""
    known = strategies(members)
    fallback = SIMPLEX if SIMPLEX in known else known[0]
    return settings.strategy if settings.strategy in known else fallback


def _quick_rule(settings: DecisionSettings) -> str:
    """The threshold rule that strategies are compared by: the profile's, or argmax in place of its slow average."""
    return ARGMAX if settings.threshold == BAGGED else settings.threshold
