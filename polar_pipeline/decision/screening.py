"""Screening: models that are too broken to take part are found, left out and named.

A model is one seed of one backbone. It is judged by its out-of-fold scores, and by how its final model's scores (rows
outside folds) look beside them; labels outside folds are not used, so flipped labels of dev can remove nobody. What the
final model gives to test posts is looked at only if the profile says `transductive`.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.decision.members import MemberScores
from polar_pipeline.decision.record import Excluded
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats, Ints, auc, macro_f1_curve

_FLAT = 1e-6  # a standard deviation of logits that says nothing
_SHRUNK = 0.1  # of the spread that the fold models have: retraining changes it by less than a third
_ONE_CLASS = 0.995  # share of posts in one class, where the folds put less than 0.99 there
_APART = 1 / 3  # of the folds' agreement with other models; sound models keep 0.9, and 0.59 under strong shift
_BEYOND = 2.0  # standard errors from which a figure is more than chance
_ERRORS = 4.0  # standard errors beyond which a figure is not bad luck

Mask = np.typing.NDArray[np.bool_]


class Rows(NamedTuple):
    """Which posts are looked at: those with out-of-fold scores and labels, and those of the final models."""

    inside: Mask
    final: Mask
    labels: Ints  # of `inside`
    folds: Ints  # of `inside`


def screen(
    posts: pd.DataFrame, members: list[MemberScores], transductive: bool = True
) -> tuple[list[MemberScores], tuple[Excluded, ...]]:
    """Members without their broken models, and what was left out and why. `posts` has split, fold and label.

    Raises InputError when no model is left.
    """
    rows = rows_of(posts, transductive)
    excluded = [
        Excluded(backbone=member.backbone, seed=seed, reason=reason)
        for member in members
        for place, seed in enumerate(member.seeds)
        if (reason := fault(member.logits[:, place], rows))
    ]
    kept = _without(members, excluded)
    while (apart := _furthest_apart(kept, rows)) is not None:
        excluded.append(apart)
        kept = _without(kept, [apart])
    excluded.sort(key=lambda model: (model.backbone, model.seed))
    if not kept:
        named = "; ".join(f"{model.backbone} seed {model.seed}: {model.reason}" for model in excluded)
        raise InputError(
            f"no model is fit to decide with ({named}): train it again, with other settings or another seed."
        )
    return kept, tuple(excluded)


def rows_of(posts: pd.DataFrame, transductive: bool) -> Rows:
    """Where there are no folds, the labelled dev posts are what decisions are made on, and nothing can be held beside it."""
    folded = (posts["fold"] >= 0).to_numpy(dtype=bool)
    labelled = posts["label"].notna().to_numpy(dtype=bool)
    inside = folded if folded.any() else labelled & (posts["split"] == "dev").to_numpy(dtype=bool)
    final = ~folded & ((posts["split"] != "test").to_numpy(dtype=bool) | transductive) & folded.any()
    return Rows(inside, final, posts["label"][inside].to_numpy(dtype=int), posts["fold"][inside].to_numpy(dtype=int))


def _without(members: list[MemberScores], excluded: list[Excluded]) -> list[MemberScores]:
    names = {(model.backbone, model.seed) for model in excluded}
    kept = []
    for member in members:
        sound = [place for place, seed in enumerate(member.seeds) if (member.backbone, seed) not in names]
        if sound:
            seeds = tuple(member.seeds[place] for place in sound)
            kept.append(MemberScores(member.backbone, seeds, member.logits[:, sound]))
    return kept


def fault(logits: Floats, rows: Rows) -> str:
    """What is wrong with a model by its own scores, or nothing."""
    inside, final = logits[rows.inside], logits[rows.final]
    if inside.std() <= _FLAT:
        return "its out-of-fold logits are constant"
    rank = auc(rows.labels, inside)
    if rank < 0.5 - _ERRORS * auc_error(rows.labels):
        return f"its out-of-fold scores are inverted (AUC {rank:.2f})"
    if not len(final):
        return ""
    return shrunk(inside, final, rows) or (_one_class(inside, final, rows.labels) if knows(rank, rows.labels) else "")


def shrunk(inside: Floats, final: Floats, rows: Rows) -> str:
    """Whether a final model's logits are nearly constant beside those of its folds."""
    spread = float(final.std() / max(_within_folds(inside, rows.folds), _FLAT))
    return f"the final model's logits spread {spread:.1%} as far as its folds'" if spread < _SHRUNK else ""


def _within_folds(logits: Floats, folds: Ints) -> float:
    """Standard deviation around each fold's own mean: the folds' models may lie apart, which is no spread of any one."""
    means = np.bincount(folds - folds.min(), weights=logits) / np.maximum(np.bincount(folds - folds.min()), 1)
    return float(np.sqrt(np.mean((logits - means[folds - folds.min()]) ** 2)))


def knows(rank: float, labels: Ints) -> bool:
    """Whether folds with this AUC do better than chance: a final model cannot lose what they do not have."""
    return rank > 0.5 + _BEYOND * auc_error(labels)


def auc_error(labels: Ints) -> float:
    """Standard error of the AUC of scores that say nothing (Hanley & McNeil 1982)."""
    positives = max(int(labels.sum()), 1)
    negatives = max(len(labels) - positives, 1)
    return float(np.sqrt((positives + negatives + 1) / (12 * positives * negatives)))


def _one_class(inside: Floats, final: Floats, labels: Ints) -> str:
    curve = macro_f1_curve(labels, inside)
    threshold = curve.thresholds[int(np.argmax(curve.values))]
    shares = [float(np.mean(scores >= threshold)) for scores in (inside, final)]
    expected, found = (max(share, 1 - share) for share in shares)
    if expected < 2 * _ONE_CLASS - 1 and found > _ONE_CLASS:
        return f"the final model puts {found:.1%} of the posts into one class"
    return ""


def _furthest_apart(members: list[MemberScores], rows: Rows) -> Excluded | None:
    """The final model that agrees least with the other models, if its folds agreed with theirs; ties go by name.

    Agreement is the rank correlation with the mean rank of the others. Needs three models: of two that disagree, nobody
    can say without labels which is wrong.
    """
    models = [(member.backbone, seed) for member in members for seed in member.seeds]
    if len(models) < 3 or rows.final.sum() < 3:
        return None
    logits = np.concatenate([member.logits for member in members], axis=1)
    inside, final = _agreement(logits[rows.inside]), _agreement(logits[rows.final])
    error = 2 / np.sqrt(rows.final.sum())  # sound models are so far from the limit that two are enough
    apart = np.full(len(models), np.inf)  # a model whose folds agree with nobody is weak, not broken
    judged = inside > error
    apart[judged] = (final[judged] + error) / inside[judged]
    place = int(np.argmin(apart))
    if apart[place] >= _APART:
        return None
    reason = f"the final model's agreement with the others is {final[place]:.2f}, that of its folds {inside[place]:.2f}"
    return Excluded(backbone=models[place][0], seed=models[place][1], reason=reason)


def _agreement(logits: Floats) -> Floats:
    """Rank correlation of each column with the mean rank of the other columns; (posts, models) to (models,)."""
    from scipy.stats import rankdata

    ranks = rankdata(logits, axis=0)
    ranks -= ranks.mean(axis=0)
    ranks /= np.maximum(ranks.std(axis=0), 1e-12)
    others = ranks.sum(axis=1, keepdims=True) - ranks
    spread = np.maximum(others.std(axis=0), 1e-12)
    agreement: Floats = (ranks * others).mean(axis=0) / spread
    return agreement
