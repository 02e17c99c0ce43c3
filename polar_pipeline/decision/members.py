"""A language's scores, laid out by backbone and seed beside its posts, and the models that are too broken to take part.

What does not belong here: weights and thresholds.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.decision.record import Excluded
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats, Ints, macro_f1, macro_f1_curve

_FLAT = 1e-6  # a standard deviation of logits that says nothing
_SHRUNK = 0.1  # of the spread that the fold models have: retraining changes it by less than a third
_ONE_CLASS = 0.995  # share of posts in one class, where the folds put less than 0.98 there
_ERRORS = 4.0  # standard errors that a final model may be below its folds before it is called broken


class MemberScores(NamedTuple):
    """Logits of one backbone: float64 (posts, seeds), rows as the posts they were gathered for."""

    backbone: str
    seeds: tuple[int, ...]
    logits: Floats

    def rows(self, which: "np.typing.NDArray[np.bool_]") -> "MemberScores":
        """Those of some posts; `which` is a mask (posts,)."""
        return self._replace(logits=self.logits[which])


def gather(posts: pd.DataFrame, scores: pd.DataFrame, backbones: list[str], language: str) -> list[MemberScores]:
    """Scores of `backbones` for `posts` (split, id), whatever the order of the table's rows.

    A backbone without any score is left out: it does not speak this language. Raises InputError when one scored some
    posts only, or gave a logit that is not finite.
    """
    index = pd.MultiIndex.from_frame(posts[["split", "id"]])
    found = []
    for backbone in sorted(backbones):
        mine = scores[scores["backbone"] == backbone]
        if mine.empty:
            continue
        table = mine.pivot(index=["split", "id"], columns="seed", values="logit").reindex(index)
        logits = table.to_numpy(dtype=float)
        bad = ~np.isfinite(logits).all(axis=1)
        if bad.any():
            raise InputError(
                f"scores of backbone {backbone!r} for {language} lack a finite logit for {int(bad.sum())} posts, first "
                f"{posts['id'].to_numpy()[bad][0]!r}: materialize {backbone}_dev_probabilities for {language} again."
            )
        found.append(MemberScores(backbone, tuple(int(seed) for seed in table.columns), logits))
    if not found:
        raise InputError(f"no backbone has scores for {language}: add one that does to the profile.")
    return found


def screen(posts: pd.DataFrame, members: list[MemberScores]) -> tuple[list[MemberScores], tuple[Excluded, ...]]:
    """Members without their collapsed models, and what was left out and why.

    Looks at the out-of-fold logits, and at how the final model's logits (rows outside folds; no label of test) compare.
    Raises InputError when no model is left.
    """
    kept, excluded = [], []
    for member in members:
        faults = [_fault(posts, member.logits[:, place]) for place in range(len(member.seeds))]
        excluded += [
            Excluded(backbone=member.backbone, seed=seed, reason=fault)
            for seed, fault in zip(member.seeds, faults, strict=True)
            if fault
        ]
        sound = [place for place, fault in enumerate(faults) if not fault]
        if sound:
            seeds = tuple(member.seeds[place] for place in sound)
            kept.append(MemberScores(member.backbone, seeds, member.logits[:, sound]))
    if not kept:
        named = "; ".join(f"{model.backbone} seed {model.seed}: {model.reason}" for model in excluded)
        raise InputError(
            f"no model is fit to decide with ({named}): train it again, with other settings or another seed."
        )
    return kept, tuple(excluded)


def _fault(posts: pd.DataFrame, logits: Floats) -> str:
    """Why this model must not take part, or nothing."""
    inside = (posts["fold"] >= 0).to_numpy()
    if inside.any() and logits[inside].std() <= _FLAT:
        return "its out-of-fold logits are constant"
    if inside.all():
        return ""
    final = logits[~inside]
    if final.std() <= _FLAT:
        return "the final model's logits are constant"
    return _against_folds(posts, logits, inside) if inside.any() else ""


def _against_folds(posts: pd.DataFrame, logits: Floats, inside: "np.typing.NDArray[np.bool_]") -> str:
    spread = logits[~inside].std() / logits[inside].std()
    if spread < _SHRUNK:
        return f"the final model's logits spread {spread:.1%} as far as its folds'"
    labels = posts["label"].to_numpy(dtype=float, na_value=np.nan)
    known = inside & np.isfinite(labels)
    curve = macro_f1_curve(labels[known].astype(int), logits[known])
    positive = logits >= curve.thresholds[int(np.argmax(curve.values))]
    shares = [max(positive[rows].mean(), 1 - positive[rows].mean()) for rows in (inside, ~inside)]
    if shares[0] < 2 * _ONE_CLASS - 1 and shares[1] > _ONE_CLASS:
        return f"the final model puts {shares[1]:.1%} of the posts into one class"
    dev = ~inside & np.isfinite(labels)
    return _below_folds(labels[dev].astype(int), positive[dev], float(curve.values.max())) if dev.any() else ""


def _below_folds(labels: Ints, positive: Ints, expected: float) -> str:
    """Dev against the folds; the standard error of a macro-F1 on n posts is at most about 0.75 / sqrt(n)."""
    found = macro_f1(labels, positive.astype(int))
    if found < expected - _ERRORS * 0.75 / np.sqrt(len(labels)):
        return f"the final model's macro-F1 on dev is {found:.3f}, that of its folds {expected:.3f}"
    return ""
