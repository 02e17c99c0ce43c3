"""How well wrong labels are found: 5% of the labels of train are flipped, and the list of doubtful ones is looked at.

Usage: POLAR_DATA_DIR=... python benchmarks/label_errors.py [--share 0.05] [--jobs 2] [--languages deu swa]

Precision and recall of the flipped posts at the length of the list, and at as many posts as were flipped, with the
linear backbone. What the release itself labels wrongly counts against the list.
"""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pandas as pd

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.factory import make_backbone
from polar_pipeline.decision.decide import decide
from polar_pipeline.decision.label_errors import label_errors
from polar_pipeline.decision.predictions import predict
from polar_pipeline.defs.project import Project
from polar_pipeline.settings.backbones import LinearSettings


def measure(given: tuple[str, float]) -> tuple[float, float, float, float]:
    """Share of the posts on the list, its precision and recall, and its precision at as many posts as were flipped."""
    code, share = given
    project = Project.load("cpu", {**os.environ, "POLAR_HOME": tempfile.mkdtemp()})
    posts = project.posts(code)
    inside = np.flatnonzero(posts["fold"] >= 0)
    flipped = np.random.default_rng(project.profile.seed).choice(inside, int(share * len(inside)), replace=False)
    labels = posts["label"].copy()
    labels.iloc[flipped] = 1 - labels.iloc[flipped]
    posts = posts.assign(label=labels)
    backbone = make_backbone(LinearSettings(), project.profile, project.card, project.home)
    ref = backbone.train(code, posts, Progress())
    scores = backbone.score(code, ref, posts)
    decision = decide(code, posts, scores, project.profile, {"linear": ref.sha256}, "benchmark")
    positive = predict(decision, posts, scores)["probability"].to_numpy()[inside]
    found = label_errors(posts.iloc[inside], np.stack([1 - positive, positive], axis=1))
    keys = pd.MultiIndex.from_frame(posts.iloc[flipped][["split", "id"]])
    hits = pd.MultiIndex.from_frame(found[["split", "id"]]).isin(keys)
    first = hits[: len(flipped)]
    return len(found) / len(inside), float(hits.mean()), float(hits.sum() / len(flipped)), float(first.mean())


def main() -> None:
    """Print a line per language, and their mean."""
    if "POLAR_DATA_DIR" not in os.environ:
        sys.exit("label_errors: set POLAR_DATA_DIR to the official release.")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--languages", nargs="*", default=Project.load("cpu").codes)
    given = parser.parse_args()
    print("| language | posts listed | precision | recall | precision of the first, as many as were flipped |")
    print("|---|---|---|---|---|")
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(measure, [(code, given.share) for code in given.languages]))
    for code, figures in [*zip(given.languages, found, strict=True), ("mean", np.mean(found, axis=0))]:
        print(f"| {code} | {' | '.join(f'{value:.1%}' for value in figures)} |")


if __name__ == "__main__":
    main()
