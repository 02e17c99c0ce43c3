"""What to do under strong covariate shift: made by splitting each language's labelled posts into two kinds of text.

Usage: POLAR_DATA_DIR=... python benchmarks/shift_response.py [--jobs 2]

Train posts of a language are clustered in two by their n-grams; the linear backbone learns on the larger side and is
judged on the smaller, whose labels nobody has looked at. Beside the train-or-test AUC stands the macro-F1 there by
each response.
"""

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.factory import make_backbone
from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.shift import shift_auc
from polar_pipeline.decision.decide import decide
from polar_pipeline.decision.predictions import predict
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats, macro_f1
from polar_pipeline.settings.decision import FoldSettings
from polar_pipeline.storage.home import Home

STEPS = 200  # of EM


def measure(code: str) -> dict[str, float]:
    """One language's AUC and macro-F1 on the side that was held out."""
    project = Project.load("cpu")
    profile = project.profile.model_copy(update={"folds": FoldSettings(fit_on="train")})
    posts = read_posts(project.data, code, project.card)
    posts = posts[posts["split"] == "train"].reset_index(drop=True)
    sides = two_kinds(posts["text"].tolist(), profile.seed)
    truth = posts["label"].astype(int)
    posts = posts.assign(split=np.where(sides == 0, "train", "test"))
    posts["label"] = posts["label"].where(sides == 0)
    posts = assign_folds(posts, profile.folds, profile.seed)
    with tempfile.TemporaryDirectory() as folder:
        backbone = make_backbone(profile.backbones[0], profile, project.card, Home(Path(folder)))
        ref = backbone.train(code, posts, Progress())
        scores = backbone.score(code, ref, posts)
    decision = decide(code, posts, scores, profile, {backbone.name: ref.sha256}, "benchmark")
    test = sides == 1
    labels = truth[test].to_numpy()
    judged = {
        name: predict(decision.model_copy(update={"shift_response": name}), posts, scores)[test]
        for name in ("none", "rate_matching")
    }
    probabilities = judged["none"]["probability"].to_numpy()
    by_em = corrected(probabilities, decision.positives)
    return {
        "auc": shift_auc(posts["text"][~test].tolist(), posts["text"][test].tolist(), profile.seed),
        "positive, known side": decision.positives,
        "positive, other side": float(labels.mean()),
        "out of fold": decision.out_of_fold.value,
        **{name: macro_f1(labels, table["prediction"].to_numpy()) for name, table in judged.items()},
        "em": macro_f1(labels, (by_em >= decision.threshold).astype(int)),
    }


def two_kinds(texts: list[str], seed: int) -> "np.typing.NDArray[np.int64]":
    """0 for the larger cluster of texts, 1 for the smaller."""
    counts = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), max_features=30_000, sublinear_tf=True)
    reduced = TruncatedSVD(20, random_state=seed).fit_transform(counts.fit_transform(texts))[:, 1:]
    found = KMeans(2, n_init=10, random_state=seed).fit_predict(reduced)
    return (found != np.bincount(found).argmax()).astype(np.int64)


def corrected(probabilities: Floats, prior: float) -> Floats:
    """Probabilities under the prior that EM finds for these posts (Saerens et al. 2002, eq. 2.4)."""
    found = prior
    adjusted = probabilities
    for _ in range(STEPS):
        positive, negative = probabilities * found / prior, (1 - probabilities) * (1 - found) / (1 - prior)
        adjusted = positive / (positive + negative)
        found = float(adjusted.mean())
    return adjusted


def main() -> None:
    """Print a line per language by AUC, and the means of those below and above 0.8."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    codes = Project.load("cpu").codes
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        table = pd.DataFrame(list(pool.map(measure, codes)), index=codes).sort_values("auc")
    print(table.round(3).to_string())
    for name, group in table.groupby(np.where(table["auc"] >= 0.8, "AUC of 0.8 and above", "below")):
        gain = group["rate_matching"] - group["none"]
        print(
            f"{name}: {len(group)} languages, none {group['none'].mean():.4f}, "
            f"rate matching {group['rate_matching'].mean():.4f} (difference {gain.mean():+.4f}, "
            f"standard error {gain.std(ddof=1) / np.sqrt(len(group)):.4f}), em {group['em'].mean():.4f}"
        )


if __name__ == "__main__":
    try:
        main()
    except InputError as error:  # no official data
        raise SystemExit(str(error)) from None
