"""Do many members that are nearly copies need steadier weights? Ways to shrink them, by nested out-of-fold macro-F1.

Usage: POLAR_HOME=... POLAR_DATA_DIR=... python benchmarks/member_weights.py --profile benchmarks/smash.yaml

The home is that of a finished `polar run --all` of the profile. Shrunk weights minimise the log loss and a squared
penalty on their distance from their mean; `simplex` keeps them above 0. `heads averaged` weighs backbones, each the
average of the members whose names begin with its name. With --without, backbones whose names end so are left out.
"""

import argparse
from collections.abc import Callable

import numpy as np
from decision_rules import DEFAULT, print_table, read
from scipy.optimize import minimize

from polar_pipeline.decision.calibration import fit_temperature, sigmoid
from polar_pipeline.decision.strategies import MemberScores, fit_combination, fit_temperatures
from polar_pipeline.decision.thresholds import choose_threshold
from polar_pipeline.defs.project import Project
from polar_pipeline.metrics.scores import Floats, Ints

Weigh = Callable[[Ints, Floats, list[str]], tuple[Floats, float]]


def shrunk(penalty: float, positive: bool) -> Weigh:
    """Weights, and an intercept if they may have any sign."""

    def weigh(labels: Ints, columns: Floats, names: list[str]) -> tuple[Floats, float]:
        size, signs = len(names), np.where(labels == 1, -1.0, 1.0)

        def loss(values: Floats) -> tuple[float, Floats]:
            weights, intercept = values[:size], values[size:].sum()
            scores, apart = columns @ weights + intercept, weights - weights.mean()
            errors = (sigmoid(scores) - labels) / len(labels)
            slope = columns.T @ errors + 2 * penalty * apart / len(labels)
            value = np.mean(np.logaddexp(0.0, signs * scores)) + penalty * apart @ apart / len(labels)
            return float(value), slope if positive else np.append(slope, errors.sum())

        start = np.append(np.full(size, 1 / size), [] if positive else [0.0])
        bounds = [(0.0, None)] * size if positive else None
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
        return found[:size], float(found[size:].sum())

    return weigh


def heads_averaged(labels: Ints, columns: Floats, names: list[str]) -> tuple[Floats, float]:
    roots = [min((other for other in names if name.startswith(other)), key=len) for name in names]
    share = np.array([[float(root == one) for one in dict.fromkeys(roots)] for root in roots])
    share /= share.sum(axis=0)
    weights, intercept = shrunk(0.0, True)(labels, columns @ share, list(dict.fromkeys(roots)))
    return share @ weights, intercept


WAYS: dict[str, Weigh] = {"heads averaged": heads_averaged}
WAYS |= {f"simplex, penalty {size}": shrunk(size, True) for size in (0, 3, 10, 30, 100)}
WAYS |= {f"ridge to equal, penalty {size}": shrunk(size, False) for size in (10, 30, 100)}


def nested(code: str, project: Project, without: tuple[str, ...]) -> dict[str, Ints]:
    """Predictions 0/1 of train by each way, and by the package's strategies."""
    language, seed, resamples = read(code, project), project.profile.seed, project.profile.decision.resamples
    train = language.folds >= 0
    labels, folds = language.labels[train], language.folds[train]
    members = [member for member in language.rows(train) if not member.name.endswith(without)]
    known = {"equal": "equal", "simplex": DEFAULT, "ridge": "ridge"}
    found = {name: np.zeros(len(labels), dtype=int) for name in [*known.values(), *WAYS]}
    for fold in np.unique(folds):
        rest, held_out = folds != fold, folds == fold
        inside, outside = [m.rows(rest) for m in members], [m.rows(held_out) for m in members]
        temperatures = fit_temperatures(labels[rest], inside)
        fits = {}
        for strategy, name in known.items():
            fitted = fit_combination(strategy, labels[rest], inside, temperatures)
            fits[name] = fitted.weights, fitted.intercept
        columns, others = (mean_logits(side, temperatures) for side in (inside, outside))
        for name, weigh in WAYS.items():
            fits[name] = weigh(labels[rest], columns, [member.name for member in members])
        for name, (weights, intercept) in fits.items():
            scores = columns @ weights + intercept
            last = fit_temperature(labels[rest], scores)
            threshold = choose_threshold("bagged", labels[rest], sigmoid(scores / last), resamples, seed).value
            found[name][held_out] = sigmoid((others @ weights + intercept) / last) >= threshold
    return found | {"labels": language.labels, "train": train.astype(int)}


def mean_logits(members: list[MemberScores], temperatures: Floats) -> Floats:
    """Calibrated, (posts, members)."""
    return np.stack([m.logits.mean(axis=1) / at for m, at in zip(members, temperatures, strict=True)], axis=1)


def main() -> None:
    """Print the table, best way first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile")
    parser.add_argument("--without", nargs="*", default=[])
    arguments = parser.parse_args()
    if not arguments.profile:
        print("nothing to replay: name with --profile the profile of a run that has ended in POLAR_HOME")
        return
    project = Project.load(arguments.profile)
    found = {code: nested(code, project, tuple(arguments.without)) for code in sorted(project.codes)}
    print_table(found, project.profile.seed)


if __name__ == "__main__":
    main()
