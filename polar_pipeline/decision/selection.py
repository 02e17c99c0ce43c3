"""Which strategy decides a language, chosen so that choosing does not over-fit (Cawley & Talbot 2010).

The profile's default is the strategy that was best over all languages. A language departs from it only to one whose lead on
its own posts, cross-fitted, is beyond the error; among such the simplest within one standard error of the best is taken
(Breiman et al. 1984, section 3.4.3). The nested estimate repeats all of this without each fold in turn.
"""

from typing import NamedTuple

import numpy as np

from polar_pipeline.decision.calibration import sigmoid
from polar_pipeline.decision.members import MemberScores
from polar_pipeline.decision.record import Candidate
from polar_pipeline.decision.strategies import Combination, combine, fit_combination, strategies
from polar_pipeline.decision.thresholds import Threshold, best_threshold, choose_threshold
from polar_pipeline.metrics.intervals import paired_interval, paired_resamples
from polar_pipeline.metrics.scores import Floats, Ints, macro_f1
from polar_pipeline.task.profile import DecisionSettings

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
    candidates = compare(labels, folds, members, settings, seed) if settings.departures else ()
    strategy = _default(members, settings)
    if candidates:
        strategy = _chosen(labels, folds, members, candidates, strategy, seed)
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

    The threshold is the best one of the other folds; averaging it over resamples costs much and moves all alike.
    """
    default = cross_fitted(_default(members, settings), labels, folds, members)
    found = []
    for strategy in strategies(members):
        predictions = cross_fitted(strategy, labels, folds, members)
        difference = paired_interval(labels, predictions, default, _RESAMPLES, seed)
        found.append(
            Candidate(
                strategy=strategy,
                macro_f1=macro_f1(labels, predictions),
                difference=difference.value,
                difference_low=difference.low,
                difference_high=difference.high,
            )
        )
    return tuple(found)


def cross_fitted(strategy: str, labels: Ints, folds: Ints, members: list[MemberScores]) -> Ints:
    """Predictions 0/1 (posts,) of one strategy: weights, temperatures and best threshold of each fold from the others."""
    predictions = np.zeros(len(labels), dtype=int)
    for fold in np.unique(folds):
        held_out = folds == fold
        inside, outside = [m.rows(~held_out) for m in members], [m.rows(held_out) for m in members]
        combination = fit_combination(strategy, labels[~held_out], inside)
        threshold = best_threshold(labels[~held_out], sigmoid(combine(combination, inside)))
        predictions[held_out] = sigmoid(combine(combination, outside)) >= threshold
    return predictions


def _default(members: list[MemberScores], settings: DecisionSettings) -> str:
    """The profile's strategy; a backbone that is not there, or an average of one, leaves what there is."""
    known = strategies(members)
    return settings.strategy if settings.strategy in known else known[-1]


def _chosen(
    labels: Ints,
    folds: Ints,
    members: list[MemberScores],
    candidates: tuple[Candidate, ...],
    default: str,
    seed: int,
) -> str:
    ahead = [candidate for candidate in candidates if candidate.difference_low > 0]
    if not ahead:
        return default
    best = max(ahead, key=lambda candidate: candidate.macro_f1)
    reference = cross_fitted(best.strategy, labels, folds, members)
    for candidate in ahead:  # from simple to rich
        predictions = cross_fitted(candidate.strategy, labels, folds, members)
        error = paired_resamples(labels, reference, predictions, _RESAMPLES, seed).std()
        if best.macro_f1 - candidate.macro_f1 <= error:
            return candidate.strategy
    return best.strategy
