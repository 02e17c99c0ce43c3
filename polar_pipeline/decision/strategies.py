"""Strategies: how calibrated members become one score. Each is fitted to a weight per member and an intercept.

From simple to rich: one member alone, the equal average, weights on a simplex, ridge-stacked logits (Wolpert 1992; the
penalty keeps weights of alike members alike). All end calibrated by one more temperature, which the weights absorb.
"""

from typing import NamedTuple

import numpy as np

from polar_pipeline.decision.calibration import fit_temperature, sigmoid
from polar_pipeline.decision.members import MemberScores
from polar_pipeline.metrics.scores import Floats, Ints
from polar_pipeline.settings.decision import STRATEGIES

EQUAL, SIMPLEX, RIDGE = STRATEGIES
_PENALTY = 1.0  # of squared weights; 0.1 to 10 differ by 0.0002 macro-F1 on real transformer scores


class Combination(NamedTuple):
    """log-odds = intercept + sum over members of weight * mean over seeds of logit / temperature; arrays are (members,)."""

    temperatures: Floats
    weights: Floats
    intercept: float


def strategies(members: list[MemberScores]) -> list[str]:
    """What can be tried with these members, from simple to rich."""
    single = [member.backbone for member in members]
    return [*single, EQUAL, SIMPLEX, RIDGE] if len(members) > 1 else single


def fit_combination(strategy: str, labels: Ints, members: list[MemberScores]) -> Combination:
    """Fit a strategy (one of `strategies(members)`) to labels 0/1 (posts,). Deterministic."""
    temperatures = np.array([_temperature(labels, member) for member in members])
    columns = _columns(members, temperatures)
    weights, intercept = _weights(strategy, labels, columns, [member.backbone for member in members])
    last = fit_temperature(labels, columns @ weights + intercept)
    return Combination(temperatures, weights / last, intercept / last)


def combine(combination: Combination, members: list[MemberScores]) -> Floats:
    """Log-odds (posts,) of the members' scores, which come in the order of the fit."""
    scores: Floats = _columns(members, combination.temperatures) @ combination.weights + combination.intercept
    return scores


def _temperature(labels: Ints, member: MemberScores) -> float:
    return fit_temperature(np.repeat(labels, len(member.seeds)), member.logits.ravel())


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
    """Weights above 0 that sum to 1 and, once scaled by a temperature, minimise the log loss; found over their logarithms."""
    from scipy.optimize import minimize

    signs = np.where(labels == 1, -1.0, 1.0)

    def loss(logs: Floats) -> tuple[float, Floats]:
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
