"""The evidence for two defaults: `fit_on: train+dev` and `final: retrain`. Macro-F1, mean over the languages.

Usage: POLAR_DATA_DIR=... python benchmarks/fold_settings.py [--jobs 2]

fit_on: out-of-fold macro-F1 of the same train posts, by models that saw the dev posts as well and by models that did
not. final: dev posts (outside the folds) scored by one model retrained on all of train, and by the average of the fold
models, both decided by the threshold of the same out-of-fold scores.
"""

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.factory import make_backbone
from polar_pipeline.decision.decide import decide
from polar_pipeline.decision.predictions import predict
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.intervals import metric_resamples
from polar_pipeline.metrics.scores import macro_f1
from polar_pipeline.storage.home import Home

VARIANTS = (("train+dev", "retrain"), ("train", "retrain"), ("train", "fold_average"))
RESAMPLES = 2000


def predictions(code: str, fit_on: str, final: str) -> pd.DataFrame:
    """Id, split, label and prediction of one language under these settings."""
    project = Project.load("cpu")
    folds = project.profile.folds.model_copy(update={"fit_on": fit_on})
    settings = project.profile.backbones[0].model_copy(update={"final": final})
    posts = project.posts(code, folds)
    with tempfile.TemporaryDirectory() as folder:
        backbone = make_backbone(settings, project.profile, project.card, Home(Path(folder)))
        ref = backbone.train(code, posts, Progress())
        scores = backbone.score(code, ref, posts)
    decision = decide(code, posts, scores, project.profile, {backbone.name: ref.sha256}, "benchmark")
    return posts[["id", "split", "label"]].assign(prediction=predict(decision, posts, scores)["prediction"].to_numpy())


def measure(code: str) -> dict[str, np.ndarray]:
    """Macro-F1 and its resamples (first value: the estimate) for each figure of one language."""
    both, train, average = (predictions(code, *variant) for variant in VARIANTS)
    figures = {
        "fit_on: train+dev, train posts": both[both["split"] == "train"],
        "fit_on: train,     train posts": train[train["split"] == "train"],
        "final: retrain,      dev posts": train[train["split"] == "dev"],
        "final: fold_average, dev posts": average[average["split"] == "dev"],
    }
    found = {}
    for seed, (name, rows) in enumerate(figures.items()):
        labels, predicted = rows["label"].to_numpy(dtype=int), rows["prediction"].to_numpy(dtype=int)
        draws = metric_resamples(labels, predicted, RESAMPLES, seed)
        found[name] = np.concatenate([[macro_f1(labels, predicted)], draws])
    return found


def main() -> None:
    """Print the four means with their standard errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    codes = Project.load("cpu").codes
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(measure, codes))
    for name in found[0]:
        mean = np.mean([language[name] for language in found], axis=0)
        print(f"{name}  {mean[0]:.4f}  standard error {mean[1:].std():.4f}  ({len(codes)} languages)")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:  # no official data
        raise SystemExit(str(error)) from None
