"""Members' scores into one decision per language, chosen on out-of-fold scores alone, and applied to all of them.

Dev rows whose scores are not out of fold move a decision only where there are no folds at all; test labels never do.
"""

import numpy as np
import pandas as pd

from polar_pipeline.corpus.duplicates import duplicate_groups
from polar_pipeline.corpus.folds import deal
from polar_pipeline.decision.calibration import sigmoid
from polar_pipeline.decision.members import MemberScores, gather, screen
from polar_pipeline.decision.record import Decision, Estimate, Member
from polar_pipeline.decision.selection import fit, nested_predictions
from polar_pipeline.decision.strategies import Combination, combine
from polar_pipeline.metrics.intervals import confusion, macro_f1_interval
from polar_pipeline.metrics.scores import Ints, expected_calibration_error
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.task.profile import Profile

_DEV_FOLDS = 5


def decide(
    language: str,
    posts: pd.DataFrame,
    scores: pd.DataFrame,
    profile: Profile,
    adapters: dict[str, str],
    posts_fingerprint: str,
) -> Decision:
    """Choose strategy, weights, temperatures and threshold of one language on its out-of-fold scores.

    `posts` has id, split, label, fold; `scores` has backbone, seed, split, fold, id, logit of `adapters`, some of which may
    have none for this language. Raises InputError when a member lacks a score or has one that is not finite.
    """
    members, excluded = screen(posts, gather(posts, scores, list(adapters), language))
    decided, folds = decided_rows(posts, profile.seed)
    labels = posts["label"][decided].to_numpy(dtype=int)
    inside = [member.rows(decided) for member in members]
    fitted = fit(labels, folds, inside, profile.decision, profile.seed)
    predictions = nested_predictions(labels, folds, inside, profile.decision, profile.seed)
    interval = macro_f1_interval(labels, predictions, profile.report.resamples, language_seed(profile.seed, language))
    return Decision(
        language=language,
        members=_members(members, fitted.combination),
        intercept=fitted.combination.intercept,
        excluded=excluded,
        strategy=fitted.strategy,
        candidates=fitted.candidates,
        threshold_rule=profile.decision.threshold,
        threshold=fitted.threshold.value,
        threshold_spread=fitted.threshold.spread,
        out_of_fold=Estimate(value=interval.value, low=interval.low, high=interval.high, posts=len(labels)),
        confusion=confusion(labels, predictions),
        calibration_error=expected_calibration_error(labels, fitted.probabilities(inside)),
        positives=float(labels.mean()),
        seed=profile.seed,
        profile_fingerprint=profile.fingerprint,
        posts_fingerprint=posts_fingerprint,
        adapters={name: adapters[name] for name in sorted(adapters)},
    )


def _members(members: list[MemberScores], combination: Combination) -> tuple[Member, ...]:
    return tuple(
        Member(backbone=member.backbone, seeds=member.seeds, temperature=float(temperature), weight=float(weight))
        for member, temperature, weight in zip(members, combination.temperatures, combination.weights, strict=True)
    )


def _combination(decision: Decision) -> Combination:
    temperatures, weights = (
        np.array([getattr(member, name) for member in decision.members]) for name in ("temperature", "weight")
    )
    return Combination(temperatures, weights, decision.intercept)


def decided_rows(posts: pd.DataFrame, seed: int) -> "tuple[np.typing.NDArray[np.bool_], Ints]":
    """Which posts a decision is made on, a mask (posts,), and the fold of each of those.

    They are the labelled posts in folds; where there are none at all, the labelled dev posts, dealt into five folds here.
    """
    labelled = posts["label"].notna().to_numpy(dtype=bool)
    inside = labelled & (posts["fold"] >= 0).to_numpy(dtype=bool)
    if inside.any():
        return inside, posts["fold"][inside].to_numpy(dtype=int)
    dev = labelled & (posts["split"] == "dev").to_numpy(dtype=bool)
    rows = posts[dev].sort_values("id", kind="stable")
    dealt = deal(duplicate_groups(rows), rows["label"].to_numpy(dtype=np.int64), _DEV_FOLDS, seed)
    return dev, pd.Series(dealt, index=rows.index)[posts.index[dev]].to_numpy(dtype=int)


def language_seed(seed: int, language: str) -> int:
    """A seed of this language's own: with one seed for all, the resamples of languages would rise and fall together."""
    return int(fingerprint([seed, language])[:8], 16)


def predict(decision: Decision, posts: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Apply a decision: id, split, fold, probability, prediction for every row of `posts`, in its order.

    Rows with fold >= 0 carry out-of-fold probabilities. Raises InputError when a member's score is missing.
    """
    names = [member.backbone for member in decision.members]
    seeds = {member.backbone: member.seeds for member in decision.members}
    wanted = scores[
        [seed in seeds.get(name, ()) for name, seed in zip(scores["backbone"], scores["seed"], strict=True)]
    ]
    members = gather(posts, wanted, names, decision.language)
    probabilities = sigmoid(combine(_combination(decision), members))
    frame = posts[["id", "split", "fold"]].reset_index(drop=True)
    return frame.assign(probability=probabilities, prediction=(probabilities >= decision.threshold).astype("int8"))
