"""The linear backbone beside the same features through a plain scikit-learn `cross_val_predict` loop, on one core.

Usage: python benchmarks/linear_speed.py [--profile cpu] [--language deu --language eng ...]

Both sides read the same posts and folds, give out-of-fold scores for the rows in folds and scores of a retrained
model for the others. The peer is a Pipeline of CountVectorizers, which counts again in every fold; ours counts once
and slices rows.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import FeatureUnion, Pipeline
from threadpoolctl import threadpool_limits

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.factory import make_backbone
from polar_pipeline.backbones.linear.backbone import ngram_kinds
from polar_pipeline.backbones.linear.features import surface_features
from polar_pipeline.backbones.linear.model import expand, fit_scaling, ngram_scale, weigh
from polar_pipeline.defs.project import Project
from polar_pipeline.metrics.scores import auc
from polar_pipeline.settings.backbones import LinearSettings
from polar_pipeline.storage.home import Home
from polar_pipeline_tests.backbones.linear.peers import vectorizer


class Weighting(TransformerMixin, BaseEstimator):
    """Counts to weighted rows, with a scale learned from the training rows."""

    def __init__(self, length: float) -> None:
        self.length = length

    def fit(self, counts: Any, labels: Any) -> "Weighting":
        self.scale_ = ngram_scale(counts.astype(np.float32), labels)
        return self

    def transform(self, counts: Any) -> Any:
        return weigh(counts.astype(np.float32), self.scale_, self.length)


class Surface(TransformerMixin, BaseEstimator):
    """Texts to expanded surface features."""

    def __init__(self, share: float) -> None:
        self.share = share

    def fit(self, texts: Any, labels: Any) -> "Surface":  # noqa: ARG002
        self.scaling_ = fit_scaling(surface_features(list(texts)))
        return self

    def transform(self, texts: Any) -> Any:
        return expand(surface_features(list(texts)), self.scaling_) * np.float32(np.sqrt(self.share))


def pipeline(settings: LinearSettings) -> Pipeline:
    """The backbone's recipe in scikit-learn's own parts."""
    kinds = ngram_kinds(settings)
    total = sum(kinds.values())
    blocks = [
        (kind.name, Pipeline([("count", vectorizer(kind, 2)), ("weigh", Weighting(float(np.sqrt(share / total))))]))
        for kind, share in kinds.items()
    ]
    features = FeatureUnion([*blocks, ("surface", Surface(settings.surface_share))])
    solver = LogisticRegression(C=1 / settings.regularisation, max_iter=300)
    return Pipeline([("features", features), ("logistic", solver)])


def peer(posts: pd.DataFrame, settings: LinearSettings) -> np.ndarray:
    """Log-odds of every post by cross_val_predict and a refit."""
    inside = (posts["fold"] >= 0).to_numpy()
    texts, labels = posts["text"].to_numpy(dtype=object), posts["label"][inside].to_numpy(dtype=int)
    scores = np.zeros(len(posts))
    split = PredefinedSplit(posts["fold"][inside].to_numpy(dtype=int))
    scores[inside] = cross_val_predict(pipeline(settings), texts[inside], labels, cv=split, method="decision_function")
    if (~inside).any():
        scores[~inside] = pipeline(settings).fit(texts[inside], labels).decision_function(texts[~inside])
    return scores


def compare(code: str, project: Project, root: Path) -> tuple[float, float]:
    """Seconds of ours and of the peer on one language; prints both, and the AUC of both scores."""
    settings = project.profile.backbones[0]
    backbone = make_backbone(settings, project.profile, project.card, Home(root))
    posts = project.posts(code)
    start = time.perf_counter()
    ours = backbone.score(code, backbone.train(code, posts, Progress()), posts)
    middle = time.perf_counter()
    theirs = peer(posts, settings)
    end = time.perf_counter()
    inside = (posts["fold"] >= 0).to_numpy()
    labels = posts["label"][inside].to_numpy(dtype=int)
    quality = [auc(labels, scores[inside]) for scores in (ours["logit"].to_numpy(), theirs)]
    mine, other = middle - start, end - middle
    print(
        f"{code}  {mine:7.2f} s  {other:7.2f} s  {other / mine:5.2f}x  AUC {quality[0]:.4f} and {quality[1]:.4f}",
        flush=True,
    )
    return mine, other


def main() -> None:
    """Print a line per language and the total."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="cpu" if os.environ.get("POLAR_DATA_DIR") else "demo")
    parser.add_argument("--language", action="append")
    arguments = parser.parse_args()
    project = Project.load(arguments.profile)
    codes = arguments.language or project.codes
    with tempfile.TemporaryDirectory() as folder:
        compare(codes[-1], project, Path(folder) / "warm")  # imports and caches
        print("language, ours, scikit-learn, ratio, out-of-fold AUC of both")
        times = np.array([compare(code, project, Path(folder)) for code in codes]).sum(axis=0)
    print(f"all  {times[0]:7.2f} s  {times[1]:7.2f} s  {times[1] / times[0]:5.2f}x")


if __name__ == "__main__":
    with threadpool_limits(limits=1):
        main()
