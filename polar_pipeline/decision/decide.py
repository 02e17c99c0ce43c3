"""The decision about one label of one language, and what it is worth on posts that it was not made on."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.corpus.folds import deal, scored_posts
from polar_pipeline.corpus.text import duplicate_groups
from polar_pipeline.decision.calibration import sigmoid
from polar_pipeline.decision.record import Decision, Estimate, Member
from polar_pipeline.decision.screening import screen
from polar_pipeline.decision.selection import (
    each_rule,
    fit,
    held_out_predictions,
    nested_fits,
    without_each,
)
from polar_pipeline.decision.strategies import Combination, MemberScores, gather, scores_sha256
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.intervals import confusion, metric_interval
from polar_pipeline.metrics.metric import MACRO_F1, Metric
from polar_pipeline.metrics.scores import Floats, Ints, Mask, expected_calibration_error
from polar_pipeline.settings.decision import DecisionSettings
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.task.card import MAIN_HEAD

NONE, RATE_MATCHING, POOLED = "none", "rate_matching", "pooled"  # responses to a strong shift
CONSTANT = "constant"  # the strategy where all labels are the same, or no backbone could learn the label
_CERTAIN = 5.0  # log-odds of the only answer
_DEV_FOLDS = 5
RESAMPLES = 2000  # of the estimate's interval: they fix a 95% limit to about 0.001 (Efron & Tibshirani 1993, ch. 13)


class Judged(NamedTuple):
    """A decision, and the decided posts that it was made on."""

    decision: Decision
    labels: Ints  # 0/1 (posts,)
    folds: Ints
    probabilities: Floats
    # by what was fitted on the other folds: for each fold in ascending order, those of all decided posts, and the
    # threshold
    nested: list[tuple[Floats, float]]


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
    return judge(language, posts, scores, profile, adapters, posts_fingerprint, shift_auc).decision


def judge(
    language: str,
    posts: pd.DataFrame,
    scores: pd.DataFrame,
    profile: Profile,
    adapters: dict[str, str],
    posts_fingerprint: str,
    shift_auc: float | None = None,
    target: str = MAIN_HEAD,
    metric: Metric = MACRO_F1,
    rows: tuple[Mask, Ints] | None = None,
) -> Judged:
    """As `decide`, about `target` by `metric`. `rows` are the `decided_rows` of the sorted posts, if known."""
    settings, seed = profile.decision, profile.seed
    # the order of the rows is fixed, because sums of floats depend on it
    posts = scored_posts(posts).sort_values(["split", "id"]).reset_index(drop=True)
    decided, folds = rows or decided_rows(posts, seed)
    labels = posts["label"][decided].to_numpy(dtype=int)
    known: dict[str, Any] = {
        "language": language,
        "target": target,
        "shift_auc": shift_auc if settings.transductive else None,
        "seed": seed,
        "posts_fingerprint": posts_fingerprint,
        "adapters": {name: adapters[name] for name in sorted(adapters)},
        "threshold_rule": settings.threshold,
        "positives": float(labels.mean()),
    }
    nothing = target != MAIN_HEAD and (len(set(labels.tolist())) < 2 or scores.empty)
    gathered = [] if nothing else gather(posts, scores, list(adapters), language)
    # `gather` makes sure that they are finite where they are used
    known["scores"] = scores_sha256(scores.assign(logit=scores["logit"].replace([np.inf, -np.inf], np.nan)))
    if nothing:
        return _constant(labels, folds, metric, known)
    members, excluded = screen(posts, gathered, settings.transductive)
    response = shift_response(shift_auc, settings)
    if response == POOLED:
        pooled = pooled_members(members, profile.pooled_backbones)
        members, response = (pooled, POOLED) if len(pooled) < len(members) else (members, NONE)
    inside = [member.rows(decided) for member in members]
    fitted = fit(labels, folds, inside, settings, seed, metric)
    probabilities = fitted.probabilities(inside)
    distances = np.abs(probabilities - fitted.threshold.value)
    fits = nested_fits(labels, folds, inside, settings, seed, metric)
    decision = Decision(
        **known,
        members=_members(members, fitted.combination),
        intercept=fitted.combination.intercept,
        excluded=excluded,
        strategy=fitted.strategy,
        candidates=fitted.candidates,
        without=without_each(fitted.strategy, labels, folds, inside, settings, seed, metric),
        rules=each_rule(fitted.strategy, labels, folds, inside, settings, seed, metric),
        threshold=fitted.threshold.value,
        threshold_spread=fitted.threshold.spread,
        positive_share=float(np.mean(probabilities >= fitted.threshold.value)),
        review_margin=float(np.quantile(distances, settings.review_share)) if settings.review_share else 0.0,
        shift_response=response,
        calibration_error=expected_calibration_error(labels, probabilities),
        **nested_evidence(labels, held_out_predictions(folds, inside, fits), metric, language_seed(seed, language)),
    )
    nested = [(one.probabilities(inside), one.threshold.value) for one in fits]
    return Judged(decision, labels, folds, probabilities, nested)


def nested_evidence(labels: Ints, predictions: Ints, metric: Metric, seed: int) -> dict[str, Any]:
    """The fields of a decision that nested predictions give; both are 0/1 (posts,)."""
    interval = metric_interval(labels, predictions, RESAMPLES, seed, metric)
    return {
        "out_of_fold": Estimate(value=interval.value, low=interval.low, high=interval.high, posts=len(labels)),
        "confusion": confusion(labels, predictions),
        "nested": np.packbits(predictions.astype(np.uint8)).tobytes().hex(),
    }


def _constant(labels: Ints, folds: Ints, metric: Metric, known: dict[str, Any]) -> Judged:
    """The only answer that the labels have; 0 where they have both and nothing has learned to tell them apart."""
    answer, seed = int(labels.min()), language_seed(known["seed"], known["language"])
    intercept = _CERTAIN if answer else -_CERTAIN
    probabilities = np.full(len(labels), float(sigmoid(np.array(intercept))))
    decision = Decision(
        **known,
        members=(),
        intercept=intercept,
        excluded=(),
        strategy=CONSTANT,
        candidates=(),
        without=(),
        rules=(),
        threshold=0.5,
        threshold_spread=0.0,
        positive_share=float(answer),
        review_margin=0.0,
        shift_response=NONE,
        calibration_error=float(abs(probabilities.mean() - labels.mean())),
        **nested_evidence(labels, np.full(len(labels), answer), metric, seed),
    )
    return Judged(decision, labels, folds, probabilities, [(probabilities, 0.5)] * len(np.unique(folds)))


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


def decided_rows(posts: pd.DataFrame, seed: int) -> tuple[Mask, Ints]:
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
