"""Which strategy decides a language, chosen so that choosing does not over-fit (Cawley & Talbot 2010).

The profile's default is the strategy that was best over all languages. A language departs from it only to one whose lead on
its own posts, cross-fitted, is beyond the error; among such the simplest within one standard error of the best is taken
(Breiman et al. 1984, section 3.4.3). The nested estimate repeats all of this without each fold in turn.
"""

from typing import NamedTuple, cast

import numpy as np

from polar_pipeline.decision.calibration import sigmoid
from polar_pipeline.decision.members import MemberScores
from polar_pipeline.decision.record import Candidate
from polar_pipeline.decision.strategies import SIMPLEX, Combination, combine, fit_combination, strategies
from polar_pipeline.decision.thresholds import ARGMAX, BAGGED, Threshold, choose_threshold
from polar_pipeline.metrics.intervals import paired_interval, paired_resamples
from polar_pipeline.metrics.scores import Floats, Ints, macro_f1
from polar_pipeline.settings.decision import DecisionSettings

_RESAMPLES = 1000  # of a difference; they cost microseconds


class Fitted(NamedTuple):
    """A strategy, what was fitted for it, and the candidates that it was chosen from."""

    strategy: str
    combination: Combination
    threshold: Threshold
    candidates: tuple[Candidate, ...]

    def probabilities(self, members: list[MemberScores]) -> Floats:
        """Calibrated probabilities (posts,)."""
        return sigmoid(combine(self.combination, members))


def fit(labels: Ints, folds: Ints, members: list[MemberScores], settings: DecisionSettings, seed: int) -> Fitted:
    """Choose a strategy on these labelled posts and fit it to all of them. `labels` 0/1 and `folds`, both (posts,)."""
    strategy, candidates = _default(members, settings), cast(tuple[Candidate, ...], ())
    if settings.departures and len(np.unique(folds)) > 1:  # one fold leaves nothing to compare on
        strategy, candidates = _choose(labels, folds, members, strategy, settings, seed)
    combination = fit_combination(strategy, labels, members)
    probabilities = sigmoid(combine(combination, members))
    threshold = choose_threshold(settings.threshold, labels, probabilities, settings.resamples, seed)
    return Fitted(strategy, combination, threshold, candidates)


def nested_predictions(
    labels: Ints, folds: Ints, members: list[MemberScores], settings: DecisionSettings, seed: int
) -> Ints:
    """Each fold is decided by what `fit` makes of the other folds, so no post helps to judge itself. 0/1 (posts,)."""
    predictions = np.zeros(len(labels), dtype=int)
    for fold in np.unique(folds):
        held_out = folds == fold
        fitted = fit(labels[~held_out], folds[~held_out], [m.rows(~held_out) for m in members], settings, seed)
        probabilities = fitted.probabilities([member.rows(held_out) for member in members])
        predictions[held_out] = probabilities >= fitted.threshold.value
    return predictions


def compare(
    labels: Ints, folds: Ints, members: list[MemberScores], settings: DecisionSettings, seed: int
) -> tuple[Candidate, ...]:
    """Every strategy's cross-fitted macro-F1 and its paired difference to the default, from simple to rich.

    The threshold is by the profile's rule on the other folds; the best one stands in for the bagged one, because averaging
    it over resamples costs much and moves all alike.
    """
    decided = _decided(labels, folds, members, settings)
    return _compared(decided, labels, _default(members, settings), seed)


def cross_fitted(
    strategy: str,
    labels: Ints,
    folds: Ints,
    members: list[MemberScores],
    rule: str = ARGMAX,
    resamples: int = 1,
    seed: int = 0,
) -> Ints:
    """Predictions 0/1 (posts,) of one strategy: weights, temperatures and threshold of each fold from the others."""
    predictions = np.zeros(len(labels), dtype=int)
    for fold in np.unique(folds):
        held_out = folds == fold
        inside, outside = [m.rows(~held_out) for m in members], [m.rows(held_out) for m in members]
        combination = fit_combination(strategy, labels[~held_out], inside)
        probabilities = sigmoid(combine(combination, inside))
        threshold = choose_threshold(rule, labels[~held_out], probabilities, resamples, seed)
        predictions[held_out] = sigmoid(combine(combination, outside)) >= threshold.value
    return predictions


def candidate(name: str, labels: Ints, predictions: Ints, reference: Ints, seed: int) -> Candidate:
    """One way to decide beside the reference; `labels`, `predictions` and `reference` are 0/1 (posts,)."""
    difference = paired_interval(labels, predictions, reference, _RESAMPLES, seed)
    return Candidate(
        name=name,
        macro_f1=macro_f1(labels, predictions),
        difference=difference.value,
        difference_low=difference.low,
        difference_high=difference.high,
    )


def _default(members: list[MemberScores], settings: DecisionSettings) -> str:
    """The profile's strategy; where its backbone does not speak the language, the best of all: simplex, or who is alone."""
    known = strategies(members)
    fallback = SIMPLEX if SIMPLEX in known else known[0]
    return settings.strategy if settings.strategy in known else fallback


def quick_rule(settings: DecisionSettings) -> str:
    """The threshold rule that strategies are compared with: the profile's, the best threshold in place of the bagged one."""
    return ARGMAX if settings.threshold == BAGGED else settings.threshold


def _decided(labels: Ints, folds: Ints, members: list[MemberScores], settings: DecisionSettings) -> dict[str, Ints]:
    """Each strategy's cross-fitted predictions, from simple to rich."""
    rule = quick_rule(settings)
    return {strategy: cross_fitted(strategy, labels, folds, members, rule) for strategy in strategies(members)}


def _compared(decided: dict[str, Ints], labels: Ints, default: str, seed: int) -> tuple[Candidate, ...]:
    return tuple(candidate(name, labels, predictions, decided[default], seed) for name, predictions in decided.items())


def _choose(
    labels: Ints, folds: Ints, members: list[MemberScores], default: str, settings: DecisionSettings, seed: int
) -> tuple[str, tuple[Candidate, ...]]:
    """The strategy that decides, and all that were considered."""
    decided = _decided(labels, folds, members, settings)
    candidates = _compared(decided, labels, default, seed)
    ahead = [found for found in candidates if found.difference_low > 0]
    if not ahead:
        return default, candidates
    best = max(ahead, key=lambda found: found.macro_f1)
    errors = {
        found.name: paired_resamples(labels, decided[best.name], decided[found.name], _RESAMPLES, seed).std()
        for found in ahead
    }
    # from simple to rich; the best itself is within any error
    simplest = next(found for found in ahead if best.macro_f1 - found.macro_f1 <= errors[found.name])
    return simplest.name, candidates
