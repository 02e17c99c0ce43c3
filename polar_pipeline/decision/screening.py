"""Broken models: which are left out of a decision, and which stop a language.

A model is one seed of one member, that is of one head of a backbone. `screen` judges it by its out-of-fold scores, and
by how the scores of its final model (rows outside folds) look beside them; the others go on without it. Labels outside
folds are not used, so flipped labels of dev can remove nobody. What the final model gives to test posts is looked at
only if the profile says `transductive`.

`unsound` judges a freshly trained model and stops the language, because whoever trained it should know. It alone looks
at labels of dev outside the folds: they can stop a language, and choose nothing. Where dev is in the folds, the final
model was trained on it, and should know it at least as well as the fold models, which were not.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.decision.record import Excluded
from polar_pipeline.decision.strategies import MemberScores, gather
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats, Ints, Mask, auc, macro_f1, threshold_curve
from polar_pipeline.task.card import MAIN_HEAD

_FLAT = 1e-6  # standard deviation of logits that say nothing
_SHRUNK = 0.1  # of the spread that the fold models have: retraining changes it by less than a third
_ONE_CLASS = 0.995  # share of posts in one class, where the folds put less than 0.99 there
_APART = 1 / 3  # of the folds' agreement with other models; sound models keep 0.9, and 0.59 under strong shift
_BEYOND = 2.0  # standard errors from which a figure is more than chance
_ERRORS = 4.0  # standard errors beyond which a figure is not bad luck
_SEEN_ERRORS = 2.0  # on posts that it was trained on: errors on the same posts, most of which both share
_FEW = 5  # posts that may be on one side of a threshold by chance alone


class ScreenedPosts(NamedTuple):
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
    rows = _rows_of(posts, transductive)
    excluded = [
        Excluded(backbone=member.backbone, head=member.head, seed=seed, reason=reason)
        for member in members
        for place, seed in enumerate(member.seeds)
        if (reason := _fault(member.logits[:, place], rows))
    ]
    kept = _without(members, excluded)
    while (apart := _furthest_apart(kept, rows)) is not None:
        # the other heads of a model read what it computes, so they go with it
        same = [member for member in kept if member.backbone == apart.backbone and apart.seed in member.seeds]
        fallen = [apart.model_copy(update={"head": member.head}) for member in same]
        excluded += fallen
        kept = _without(kept, fallen)
    excluded.sort(key=lambda model: (model.name, model.seed))
    if not kept:
        named = "; ".join(f"{model.name} seed {model.seed}: {model.reason}" for model in excluded)
        raise InputError(
            f"no model is fit to decide with ({named}): train it again, with other settings or another seed."
        )
    return kept, tuple(excluded)


def _rows_of(posts: pd.DataFrame, transductive: bool) -> ScreenedPosts:
    """Without folds, `inside` is the labelled dev posts, on which decisions are then made, and `final` is empty."""
    folded = (posts["fold"] >= 0).to_numpy(dtype=bool)
    labelled = posts["label"].notna().to_numpy(dtype=bool)
    inside = folded if folded.any() else labelled & (posts["split"] == "dev").to_numpy(dtype=bool)
    final = ~folded & ((posts["split"] != "test").to_numpy(dtype=bool) | transductive) & folded.any()
    return ScreenedPosts(
        inside, final, posts["label"][inside].to_numpy(dtype=int), posts["fold"][inside].to_numpy(dtype=int)
    )


def _without(members: list[MemberScores], excluded: list[Excluded]) -> list[MemberScores]:
    names = {(model.name, model.seed) for model in excluded}
    kept = []
    for member in members:
        sound = [place for place, seed in enumerate(member.seeds) if (member.name, seed) not in names]
        if sound:
            seeds = tuple(member.seeds[place] for place in sound)
            kept.append(member._replace(seeds=seeds, logits=member.logits[:, sound]))
    return kept


def _fault(logits: Floats, rows: ScreenedPosts) -> str:
    """What is wrong with a model by its own scores, or nothing."""
    inside, final = logits[rows.inside], logits[rows.final]
    if inside.std() <= _FLAT:
        return "its out-of-fold logits are constant"
    rank = auc(rows.labels, inside)
    if rank < 0.5 - _ERRORS * _auc_error(rows.labels):
        return f"its out-of-fold scores are inverted (AUC {rank:.2f})"
    if not len(final):
        return ""
    return _shrunk(inside, final, rows) or (_one_class(inside, final, rows.labels) if _knows(rank, rows.labels) else "")


def _shrunk(inside: Floats, final: Floats, rows: ScreenedPosts) -> str:
    """Whether a final model's logits are nearly constant beside those of its folds."""
    spread = float(final.std() / max(_within_folds(inside, rows.folds), _FLAT))
    return f"the final model's logits spread {spread:.1%} as far as its folds'" if spread < _SHRUNK else ""


def _within_folds(logits: Floats, folds: Ints) -> float:
    """Standard deviation around the mean of each fold: that fold models lie apart is no spread of any of them."""
    means = np.bincount(folds - folds.min(), weights=logits) / np.maximum(np.bincount(folds - folds.min()), 1)
    return float(np.sqrt(np.mean((logits - means[folds - folds.min()]) ** 2)))


def _knows(rank: float, labels: Ints) -> bool:
    """Whether folds with this AUC do better than chance: a final model cannot lose what they do not have."""
    return rank > 0.5 + _BEYOND * _auc_error(labels)


def _auc_error(labels: Ints) -> float:
    """Standard error of the AUC of scores that say nothing (Hanley & McNeil 1982)."""
    positives = max(int(labels.sum()), 1)
    negatives = max(len(labels) - positives, 1)
    return float(np.sqrt((positives + negatives + 1) / (12 * positives * negatives)))


def _one_class(inside: Floats, final: Floats, labels: Ints) -> str:
    threshold, _ = _best(labels, inside)
    shares = [float(np.mean(scores >= threshold)) for scores in (inside, final)]
    expected, found = (max(share, 1 - share) for share in shares)
    if expected < 2 * _ONE_CLASS - 1 and found > _ONE_CLASS:
        return f"the final model puts {found:.1%} of the posts into one class"
    return ""


def _furthest_apart(members: list[MemberScores], rows: ScreenedPosts) -> Excluded | None:
    """The final model that agrees least with the other models, if its folds agreed with theirs; ties go by name.

    Agreement is the rank correlation with the mean rank of the others. Needs three models: of two that disagree, nobody
    can say without labels which is wrong. A model has one voice, that of its main head.
    """
    members = [member for member in members if member.head == MAIN_HEAD]
    models = [(member, seed) for member in members for seed in member.seeds]
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
    member, seed = models[place]
    return Excluded(backbone=member.backbone, head=member.head, seed=seed, reason=reason)


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


def unsound(
    posts: pd.DataFrame,
    scores: pd.DataFrame,
    language: str,
    transductive: bool,
    probes: pd.DataFrame | None = None,
) -> list[str]:
    """A sentence for every model (member and seed) that is broken; none where there are no scores.

    `posts` has split, id, fold and label. `transductive` is whether logits of test may be looked at. `probes` is a
    scores table of final models; they were trained on those of its posts that are in folds.
    """
    if scores.empty:
        return []
    inside = None if probes is None else probes[probes["fold"] >= 0]
    rows = _rows_of(posts, transductive)
    dev = ((posts["split"] == "dev") & posts["label"].notna() & (posts["fold"] < 0)).to_numpy(dtype=bool)
    labels = posts["label"][dev].to_numpy(dtype=int)
    found = []
    for member in gather(posts, scores, sorted(scores["backbone"].unique()), language):
        for place, seed in enumerate(member.seeds):
            logits = member.logits[:, place]
            reason = _fault(logits, rows) or _far_below(logits, rows, dev, labels) or _undivided(logits, rows)
            if not reason and inside is not None:
                mine = inside[(inside["head"] == member.head) & (inside["seed"] == seed)]
                reason = _below_unseen(logits, rows, posts, mine)
            if reason:
                found.append(f"{member.name} seed {seed}: {reason}")
    return found


def _far_below(logits: Floats, rows: ScreenedPosts, dev: Mask, labels: Ints) -> str:
    """Whether the final model is far below its folds on dev, at their threshold. Needs folds, and dev outside them."""
    if not rows.final.any() or len(set(labels.tolist())) < 2:
        return ""
    if not _knows(auc(rows.labels, logits[rows.inside]), rows.labels):
        return ""
    threshold, expected = _best(rows.labels, logits[rows.inside])
    score = macro_f1(labels, (logits[dev] >= threshold).astype(int))
    # that of an accuracy of one half, the widest there is, on as many posts as the smaller class allows
    error = 0.5 * np.sqrt(1 / _balanced(labels) + 1 / _balanced(rows.labels))
    if score >= expected - _ERRORS * error:
        return ""
    return f"the final model has macro-F1 {score:.2f} on dev, its folds {expected:.2f}"


def _below_unseen(logits: Floats, rows: ScreenedPosts, posts: pd.DataFrame, probes: pd.DataFrame) -> str:
    """Whether the final model does worse on posts that it was trained on than the fold models, which were not."""
    if probes.empty:
        return ""
    places = posts.reset_index(drop=True).reset_index().set_index(["split", "id"])["index"]
    same = places[pd.MultiIndex.from_frame(probes[["split", "id"]])].to_numpy()
    seen, unseen, inside = probes["logit"].to_numpy(dtype=float), logits[same], logits[rows.inside]
    if reason := _shrunk(inside, seen, rows):
        return f"{reason}, on posts that it was trained on"
    labels = posts["label"].to_numpy(dtype=int, na_value=-1)[same]
    if len(set(labels.tolist())) < 2 or not _knows(auc(rows.labels, inside), rows.labels):
        return ""
    threshold, _ = _best(rows.labels, inside)
    above = [(found >= threshold).astype(int) for found in (seen, unseen)]
    if len(set(above[0].tolist())) == 1 and _rarer(above[1]) >= _FEW:
        return f"the final model puts all {len(labels)} posts of a sample that it was trained on into one class"
    text = (
        f"the final model has {{}} {{:.2f}} on {len(labels)} posts that it was trained on, "
        "its folds, which were not, {:.2f}"
    )
    ranks = auc(labels, seen), auc(labels, unseen)
    fall = (ranks[1] - ranks[0]) / _auc_error(labels)
    # where the folds do better than chance and it does not, half of that is enough
    lost = _knows(ranks[1], labels) and not _knows(ranks[0], labels)
    if fall > (_SEEN_ERRORS / 2 if lost else _SEEN_ERRORS):
        return text.format("AUC", *ranks)
    scores = [macro_f1(labels, found) for found in above]
    if scores[0] < scores[1] - _ERRORS * 0.5 * np.sqrt(1 / _balanced(labels)):
        return text.format("macro-F1", *scores)
    return ""


def _best(labels: Ints, scores: Floats) -> tuple[float, float]:
    """The threshold with the highest macro-F1, and that macro-F1."""
    curve = threshold_curve(labels, scores)
    best = int(np.argmax(curve.values))
    return float(curve.thresholds[best]), float(curve.values[best])


def _rarer(labels: Ints) -> int:
    """Posts of the smaller class."""
    return int(min(labels.sum(), len(labels) - labels.sum()))


def _balanced(labels: Ints) -> int:
    """How many posts there would be if the larger class were as small as the other."""
    return 2 * _rarer(labels)


def _undivided(logits: Floats, rows: ScreenedPosts) -> str:
    """Whether all posts of dev get one class. With folds, the other checks say more."""
    inside = logits[rows.inside]
    if (rows.folds >= 0).any() or (inside >= 0).any() != (inside >= 0).all():
        return ""
    return f"it puts all {len(inside)} posts of dev into one class"
