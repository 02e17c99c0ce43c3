"""How long deciding takes: one threshold search beside scikit-learn's, and all languages with selection and intervals.

Usage: python benchmarks/decision_speed.py [--profile benchmarks/smash.yaml --jobs 2]

The search is timed on made-up scores. With a profile whose run has ended in POLAR_HOME, its languages are decided
again from the stored scores: strategies, weights, thresholds, nested estimate, contributions of every part, intervals.
"""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import f1_score, make_scorer
from sklearn.model_selection import TunedThresholdClassifierCV

from polar_pipeline.decision.calibration import sigmoid
from polar_pipeline.decision.decide import decide
from polar_pipeline.decision.thresholds import best_threshold
from polar_pipeline.defs.lineage import Lineage
from polar_pipeline.defs.project import Project
from polar_pipeline.metrics.scores import Floats, Ints, macro_f1

POSTS = (500, 3000, 7000, 100_000)
REPEATS = 5


class Given(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose probability is the only feature."""

    def fit(self, features: Floats, labels: Ints) -> "Given":  # noqa: ARG002
        self.classes_ = np.unique(labels)
        return self

    def predict_proba(self, features: Floats) -> Floats:
        return np.column_stack([1 - features[:, 0], features[:, 0]])

    def predict(self, features: Floats) -> Ints:
        return (features[:, 0] >= 0.5).astype(int)


def fastest(function: object) -> tuple[float, float]:
    """Least seconds of some repeats, and the threshold found."""
    seconds, threshold = [], 0.0
    for _ in range(REPEATS):
        started = time.perf_counter()
        threshold = function()  # type: ignore[operator]
        seconds.append(time.perf_counter() - started)
    return min(seconds), threshold


def searches() -> None:
    """One line per number of posts."""
    print("posts    ours, ms  scikit-learn, ms  ratio   macro-F1, ours  scikit-learn's")
    for count in POSTS:
        generator = np.random.default_rng(count)
        labels = (generator.random(count) < 0.3).astype(int)
        probabilities = sigmoid(1.2 * labels - 1.4 + generator.normal(size=count))
        peer = TunedThresholdClassifierCV(
            Given().fit(probabilities[:, None], labels),
            scoring=make_scorer(f1_score, average="macro"),
            cv="prefit",
            refit=False,
        )
        ours, threshold = fastest(lambda labels=labels, p=probabilities: best_threshold(labels, p))
        theirs, other = fastest(
            lambda labels=labels, p=probabilities, peer=peer: peer.fit(p[:, None], labels).best_threshold_
        )
        values = [macro_f1(labels, (probabilities >= at).astype(int)) for at in (threshold, other)]
        print(
            f"{count:7,} {1000 * ours:9.2f} {1000 * theirs:17.1f} {theirs / ours:6.0f}   "
            f"{values[0]:.5f}         {values[1]:.5f}"
        )


def decide_one(arguments: tuple[str, str]) -> int:
    """Decide one language from the home's tables; how many scores that took."""
    code, profile = arguments
    project = Project.load(profile)
    names = [backbone.name for backbone in project.profile.backbones]
    lineage = Lineage(project)
    scores = pd.concat(lineage.read(f"{name}_dev_probabilities", code) for name in names)
    decide(code, lineage.read("raw_posts", code), scores, project.profile, dict.fromkeys(names, ""), "")
    return len(scores)


def decisions(profile: str, jobs: int) -> None:
    """All languages of the profile."""
    codes = Project.load(profile).codes
    started = time.perf_counter()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        scores = sum(pool.map(decide_one, [(code, profile) for code in codes]))
    print(f"{len(codes)} languages, {scores:,} scores, {jobs} processes: {time.perf_counter() - started:.1f} s")


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile")
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))
    searches()
    if arguments.profile:
        decisions(arguments.profile, arguments.jobs)


if __name__ == "__main__":
    main()
