"""Strategies: how the scores of several members become one score, a weight for each member and an intercept.

A member is one head of one backbone.
From simple to rich: one member alone, the equal average, weights on a simplex, and logistic regression on the logits
with a ridge penalty (stacking, Wolpert 1992; the penalty keeps the weights of similar members similar). A last
temperature calibrates the result; the weights absorb it.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.decision.calibration import fit_temperature, sigmoid
from polar_pipeline.decision.record import member_name
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats, Ints
from polar_pipeline.settings.decision import STRATEGIES
from polar_pipeline.storage.fingerprint import frame_fingerprint
from polar_pipeline.task.card import MAIN_HEAD

EQUAL, SIMPLEX, RIDGE = STRATEGIES
# of squared weights: 0.1 to 10 differ by 0.0002 macro-F1 with up to 5 members, 1 to 100 by 0.0007 with up to 11
_PENALTY = 1.0


class MemberScores(NamedTuple):
    """Logits of one head of a backbone: float64 (posts, seeds), rows as the posts they were gathered for."""

    backbone: str
    seeds: tuple[int, ...]
    logits: Floats
    head: str = MAIN_HEAD

    @property
    def name(self) -> str:
        """That of the member."""
        return member_name(self.backbone, self.head)

    def rows(self, which: "np.typing.NDArray[np.bool_]") -> "MemberScores":
        """Those of some posts; `which` is a mask (posts,)."""
        return self._replace(logits=self.logits[which])


def scores_sha256(scores: pd.DataFrame) -> dict[str, str]:
    """The sha256 of each backbone's scores, whatever the order of the table's rows."""
    ordered = scores.sort_values(["backbone", "head", "seed", "split", "id"], kind="stable")
    columns = ["head", "seed", "split", "fold", "id", "logit"]
    return {str(name): frame_fingerprint(rows, columns) for name, rows in ordered.groupby("backbone", sort=True)}


def gather(posts: pd.DataFrame, scores: pd.DataFrame, backbones: list[str], language: str) -> list[MemberScores]:
    """Scores of all heads of `backbones` for `posts` (split, id), whatever the order of the table's rows.

    A backbone without any score does not know this language and is left out. Raises InputError when a head scored
    some posts only, or gave a logit that is not finite, and when no backbone is left.
    """
    index = pd.MultiIndex.from_frame(posts[["split", "id"]])
    found = []
    mine = scores[scores["backbone"].isin(backbones)]
    for backbone, head in mine[["backbone", "head"]].drop_duplicates().itertuples(index=False):
        rows = mine[(mine["backbone"] == backbone) & (mine["head"] == head)]
        table = rows.pivot(index=["split", "id"], columns="seed", values="logit").reindex(index)
        logits = table.to_numpy(dtype=float)
        bad = ~np.isfinite(logits).all(axis=1)
        if bad.any():
            raise InputError(
                f"scores of {member_name(backbone, head)!r} for {language} lack a finite logit for {int(bad.sum())} "
                f"posts, first {posts['id'].to_numpy()[bad][0]!r}: "
                f"materialize {backbone}_dev_probabilities for {language} again."
            )
        found.append(MemberScores(backbone, tuple(int(seed) for seed in table.columns), logits, head))
    if not found:
        raise InputError(f"no backbone has scores for {language}: add one that does to the profile.")
    return sorted(found, key=lambda member: member.name)


class Combination(NamedTuple):
    """log-odds = intercept + sum over members of weight * mean over seeds of logit / temperature.

    Arrays have shape (members,).
    """

    temperatures: Floats
    weights: Floats
    intercept: float


def strategies(members: list[MemberScores]) -> list[str]:
    """Names of the strategies that these members allow, from simple to rich."""
    single = [member.name for member in members]
    return [*single, EQUAL, SIMPLEX, RIDGE] if len(members) > 1 else single


def fit_temperatures(labels: Ints, members: list[MemberScores]) -> Floats:
    """One temperature for each member (members,), for all its seeds."""
    return np.array(
        [fit_temperature(np.repeat(labels, len(member.seeds)), member.logits.ravel()) for member in members]
    )


def fit_combination(
    strategy: str, labels: Ints, members: list[MemberScores], temperatures: Floats | None = None
) -> Combination:
    """Fit a strategy (one of `strategies(members)`) to labels 0/1 (posts,). Deterministic.

    `temperatures` are those that `fit_temperatures` gives, where they are known already.
    """
    temperatures = fit_temperatures(labels, members) if temperatures is None else temperatures
    columns = _columns(members, temperatures)
    weights, intercept = _weights(strategy, labels, columns, [member.name for member in members])
    last = fit_temperature(labels, columns @ weights + intercept)
    return Combination(temperatures, weights / last, intercept / last)


def combine(combination: Combination, members: list[MemberScores]) -> Floats:
    """Log-odds (posts,) of the members' scores, which come in the order of the fit."""
    scores: Floats = _columns(members, combination.temperatures) @ combination.weights + combination.intercept
    return scores


def _columns(members: list[MemberScores], temperatures: Floats) -> Floats:
    return np.stack([member.logits.mean(axis=1) / at for member, at in zip(members, temperatures, strict=True)], axis=1)


def _weights(strategy: str, labels: Ints, columns: Floats, names: list[str]) -> tuple[Floats, float]:
    size = len(names)
    if strategy == EQUAL:
        return np.full(size, 1 / size), 0.0
    if strategy == SIMPLEX:
        return _simplex(labels, columns), 0.0
    if strategy == RIDGE:
        return _ridge(labels, columns)
    return np.array([float(name == strategy) for name in names]), 0.0


def _simplex(labels: Ints, columns: Floats) -> Floats:
    """Weights above 0 that sum to 1 and, scaled by a temperature, minimise the log loss."""
    from scipy.optimize import minimize

    signs = np.where(labels == 1, -1.0, 1.0)

    def loss(logs: Floats) -> tuple[float, Floats]:  # of the weights' logarithms
        weights = np.exp(logs)  # their sum is free: it stands for the temperature
        scores = columns @ weights
        gradient = columns.T @ (sigmoid(scores) - labels) / len(labels)
        return float(np.mean(np.logaddexp(0.0, signs * scores))), weights * gradient

    size = columns.shape[1]
    found = minimize(loss, np.full(size, -np.log(size)), jac=True, method="L-BFGS-B", bounds=[(-20.0, 20.0)] * size)
    weights: Floats = np.exp(found.x) / np.exp(found.x).sum()
    return weights


def _ridge(labels: Ints, columns: Floats) -> tuple[Floats, float]:
    """Logistic regression with a squared penalty on the weights and none on the intercept."""
    if len(np.unique(labels)) < 2:
        return np.full(columns.shape[1], 1 / columns.shape[1]), 0.0
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / _PENALTY, solver="newton-cholesky", tol=1e-8).fit(columns, labels)
    return model.coef_[0].astype(float), float(model.intercept_[0])
