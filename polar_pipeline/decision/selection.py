"""One decision per language, chosen on out-of-fold scores alone, and what each part of it is worth.

The profile's strategy was best over all languages. A language departs from it only for a strategy whose lead on its
own posts, cross-fitted, is beyond the error, corrected for the number of strategies (Bonferroni); among those, the
simplest within one standard error of the best is taken (Breiman et al. 1984, section 3.4.3). The nested estimate
repeats all choices without each fold in turn, so that choosing does not make it optimistic (Cawley & Talbot 2010).
Labels of test are never used.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.corpus.folds import deal, scored_posts
from polar_pipeline.corpus.text import duplicate_groups
from polar_pipeline.decision.calibration import sigmoid
from polar_pipeline.decision.record import Candidate, Decision, Estimate, Member
from polar_pipeline.decision.screening import screen
from polar_pipeline.decision.strategies import (
    SIMPLEX,
    Combination,
    MemberScores,
    combine,
    fit_combination,
    fit_temperatures,
    gather,
    scores_sha256,
    strategies,
)
from polar_pipeline.decision.thresholds import ARGMAX, BAGGED, RULES, Threshold, choose_threshold
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.intervals import confusion, metric_interval, paired_interval, paired_resamples
from polar_pipeline.metrics.scores import Floats, Ints, expected_calibration_error, macro_f1
from polar_pipeline.settings.decision import DecisionSettings
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.fingerprint import fingerprint

NONE, RATE_MATCHING, POOLED = "none", "rate_matching", "pooled"  # responses to a strong shift
_DEV_FOLDS = 5
_RESAMPLES = 2000  # of the estimate's interval: they fix a 95% limit to about 0.001 (Efron & Tibshirani 1993, ch. 13)
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


def decide(
    language: str,
    posts: pd.DataFrame,
    scores: pd.DataFrame,
    profile: Profile,
    adapters: dict[str, str],
    posts_fingerprint: str,
    shift_auc: float | None = None,
) -> Decision:
    """Choose strategy, weights, temperatures and threshold of one language on its out-of-fold scores.

    `posts` has id, text, split, label, fold; `scores` is the scores table of `adapters` (name to sha256), some
    of which may have none for this language. Raises InputError when a backbone lacks a score or has one that is not
    finite.
    """
    settings, seed = profile.decision, profile.seed
    # the order of the rows is fixed, because sums of floats depend on it
    posts = scored_posts(posts).sort_values(["split", "id"]).reset_index(drop=True)
    members, excluded = screen(posts, gather(posts, scores, list(adapters), language), settings.transductive)
    response = shift_response(shift_auc, settings)
    if response == POOLED:
        pooled = pooled_members(members, profile.pooled_backbones)
        members, response = (pooled, POOLED) if len(pooled) < len(members) else (members, NONE)
    decided, folds = decided_rows(posts, seed)
    labels = posts["label"][decided].to_numpy(dtype=int)
    inside = [member.rows(decided) for member in members]
    fitted = fit(labels, folds, inside, settings, seed)
    probabilities = fitted.probabilities(inside)
    distances = np.abs(probabilities - fitted.threshold.value)
    predictions = nested_predictions(labels, folds, inside, settings, seed)
    interval = metric_interval(labels, predictions, _RESAMPLES, language_seed(seed, language))
    return Decision(
        language=language,
        members=_members(members, fitted.combination),
        intercept=fitted.combination.intercept,
        excluded=excluded,
        strategy=fitted.strategy,
        candidates=fitted.candidates,
        without=without_each(fitted.strategy, labels, folds, inside, settings, seed),
        threshold_rule=settings.threshold,
        rules=each_rule(fitted.strategy, labels, folds, inside, settings, seed),
        threshold=fitted.threshold.value,
        threshold_spread=fitted.threshold.spread,
        positive_share=float(np.mean(probabilities >= fitted.threshold.value)),
        review_margin=float(np.quantile(distances, settings.review_share)) if settings.review_share else 0.0,
        shift_auc=shift_auc if settings.transductive else None,
        shift_response=response,
        out_of_fold=Estimate(value=interval.value, low=interval.low, high=interval.high, posts=len(labels)),
        confusion=confusion(labels, predictions),
        nested=np.packbits(predictions.astype(np.uint8)).tobytes().hex(),
        calibration_error=expected_calibration_error(labels, probabilities),
        positives=float(labels.mean()),
        seed=seed,
        posts_fingerprint=posts_fingerprint,
        adapters={name: adapters[name] for name in sorted(adapters)},
        scores=scores_sha256(scores),
    )


def shift_response(auc: float | None, settings: DecisionSettings) -> str:
    """The response of the profile where this train-or-test AUC is strong and test posts may be looked at, else `none`.

    Estimating the share of positives by EM (Saerens et al. 2002) is not offered: it assumes that the texts of a class
    are alike in train and test, and a strong shift breaks that.
    """
    strong = auc is not None and auc >= settings.shift_response_auc
    return settings.shift_response if strong and settings.transductive else NONE


def pooled_members(members: list[MemberScores], pooled: frozenset[str]) -> list[MemberScores]:
    """Those trained on all languages, which have seen more kinds of posts; all members if none is."""
    return [member for member in members if member.backbone in pooled] or members


def decided_rows(posts: pd.DataFrame, seed: int) -> "tuple[np.typing.NDArray[np.bool_], Ints]":
    """Which posts a decision is made on, a mask (posts,), and the fold of each of those.

    They are the labelled posts in folds; where there are none at all, the labelled dev posts, dealt into five folds
    here.
    """
    labelled = posts["label"].notna().to_numpy(dtype=bool)
    inside = labelled & (posts["fold"] >= 0).to_numpy(dtype=bool)
    if inside.any():
        return inside, posts["fold"][inside].to_numpy(dtype=int)
    dev = labelled & (posts["split"] == "dev").to_numpy(dtype=bool)
    rows = posts[dev].sort_values("id", kind="stable")
    dealt = deal(duplicate_groups(rows), rows["label"].to_numpy(dtype=np.int64), _DEV_FOLDS, seed)
    return dev, pd.Series(dealt, index=rows.index)[posts.index[dev]].to_numpy(dtype=int)


def nested_table(decision: Decision, posts: pd.DataFrame) -> pd.DataFrame:
    """The decided posts with label and nested prediction (0/1), indexed by split and id. `posts` are those decided on.

    Raises InputError when they are more or fewer than were decided on.
    """
    decided, _ = decided_rows(posts, decision.seed)
    table = posts.loc[decided, ["split", "id", "label"]].sort_values(["split", "id"])
    if len(table) != decision.out_of_fold.posts:
        raise InputError(
            f"{decision.language} was decided on {decision.out_of_fold.posts} posts and raw_posts holds {len(table)} "
            f"now: materialize thresholds for {decision.language} again."
        )
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(decision.nested), dtype=np.uint8))[: len(table)]
    return table.assign(prediction=bits.astype(int)).set_index(["split", "id"])


def language_seed(seed: int, language: str) -> int:
    """A seed for each language: with one seed for all, the resamples of the languages would rise and fall together."""
    return int(fingerprint([seed, language])[:8], 16)


def fit(labels: Ints, folds: Ints, members: list[MemberScores], settings: DecisionSettings, seed: int) -> Fitted:
    """Choose a strategy on these labelled posts and fit it to all of them. `labels` 0/1 and `folds`, both (posts,)."""
    strategy = _default(members, settings)
    candidates: tuple[Candidate, ...] = ()
    if settings.departures and len(np.unique(folds)) > 1:  # one fold leaves nothing to compare on
        candidates, decided = compare(labels, folds, members, settings, seed)
        strategy = departure(labels, decided, strategy, seed)
    combination = fit_combination(strategy, labels, members)
    probabilities = sigmoid(combine(combination, members))
    threshold = choose_threshold(settings.threshold, labels, probabilities, settings.resamples, seed)
    return Fitted(strategy, combination, threshold, candidates)


def nested_predictions(
    labels: Ints, folds: Ints, members: list[MemberScores], settings: DecisionSettings, seed: int
) -> Ints:
    """Each fold is decided by what `fit` makes of the other folds: their labels and out-of-fold logits. 0/1 (posts,).

    A fold's labels thus choose no weight, temperature, strategy or threshold that it is judged by. They are not without
    any trace: the other folds' logits come from models that were trained on this fold too, as is usual in stacking.
    """
    predictions = np.zeros(len(labels), dtype=int)
    for fold in np.unique(folds):
        held_out = folds == fold
        fitted = fit(labels[~held_out], folds[~held_out], [m.rows(~held_out) for m in members], settings, seed)
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
        threshold = choose_threshold(rule, labels[~held_out], probabilities, resamples, seed)
        predictions[held_out] = sigmoid(combine(combination, outside)) >= threshold.value
    return predictions


def _temperatures(labels: Ints, folds: Ints, members: list[MemberScores]) -> Floats:
    """The temperatures (folds, members) from all folds but one."""
    outside = [folds != fold for fold in np.unique(folds)]
    return np.stack([fit_temperatures(labels[rows], [member.rows(rows) for member in members]) for rows in outside])


def compare(
    labels: Ints, folds: Ints, members: list[MemberScores], settings: DecisionSettings, seed: int
) -> tuple[tuple[Candidate, ...], dict[str, Ints]]:
    """Every strategy beside the profile's, from simple to rich, and its cross-fitted predictions by name."""
    rule, known = _quick_rule(settings), _temperatures(labels, folds, members)
    decided = {
        strategy: cross_fitted(strategy, labels, folds, members, rule, temperatures=known)
        for strategy in strategies(members)
    }
    reference = decided[_default(members, settings)]
    return tuple(_candidate(name, labels, found, reference, seed) for name, found in decided.items()), decided


def departure(labels: Ints, decided: dict[str, Ints], default: str, seed: int) -> str:
    """The strategy that decides: the default, or else the simplest that is beyond the error better and as good as any.

    `decided` are the predictions 0/1 (posts,) of each strategy, from simple to rich.
    """
    values = {name: macro_f1(labels, predictions) for name, predictions in decided.items()}

    def error(first: str, second: str) -> float:
        return float(paired_resamples(labels, decided[first], decided[second], _DIFFERENCE_RESAMPLES, seed).std())

    # of many strategies that are as good as the default, some would often be beyond the error of one comparison
    limit = NormalDist().inv_cdf(1 - _CHANCE / 2 / max(len(decided) - 1, 1))
    ahead = [name for name in decided if values[name] - values[default] > limit * error(name, default)]
    if not ahead:
        return default
    best = max(ahead, key=lambda name: values[name])
    return next(name for name in ahead if values[best] - values[name] <= error(best, name))  # the best itself is


def without_each(
    strategy: str, labels: Ints, folds: Ints, members: list[MemberScores], settings: DecisionSettings, seed: int
) -> tuple[Candidate, ...]:
    """The strategy without each member in turn: negative where the member helps. Empty for a single member.

    For readers of the report only: nothing is decided by these figures.
    """
    if strategy in {member.name for member in members}:
        return ()
    rule, known = _quick_rule(settings), _temperatures(labels, folds, members)
    whole = cross_fitted(strategy, labels, folds, members, rule, temperatures=known)
    found = []
    for place, member in enumerate(members):
        rest = [other for other in members if other is not member]
        left = strategy if strategy in strategies(rest) else rest[0].name
        others = np.delete(known, place, axis=1)
        decided = cross_fitted(left, labels, folds, rest, rule, temperatures=others)
        found.append(_candidate(member.name, labels, decided, whole, seed))
    return tuple(found)


def each_rule(
    strategy: str, labels: Ints, folds: Ints, members: list[MemberScores], settings: DecisionSettings, seed: int
) -> tuple[Candidate, ...]:
    """The strategy with each threshold rule, beside the profile's. For readers only, like `without_each`."""
    decided = {rule: cross_fitted(strategy, labels, folds, members, rule, settings.resamples, seed) for rule in RULES}
    reference = decided[settings.threshold]
    return tuple(_candidate(rule, labels, predictions, reference, seed) for rule, predictions in decided.items())


def _candidate(name: str, labels: Ints, predictions: Ints, reference: Ints, seed: int) -> Candidate:
    difference = paired_interval(labels, predictions, reference, _DIFFERENCE_RESAMPLES, seed)
    return Candidate(
        name=name,
        macro_f1=macro_f1(labels, predictions),
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


def _members(members: list[MemberScores], combination: Combination) -> tuple[Member, ...]:
    return tuple(
        Member(
            backbone=member.backbone,
            head=member.head,
            seeds=member.seeds,
            temperature=float(temperature),
            weight=float(weight),
        )
        for member, temperature, weight in zip(members, combination.temperatures, combination.weights, strict=True)
    )
