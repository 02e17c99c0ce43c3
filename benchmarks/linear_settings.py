"""The evidence for the linear backbone's defaults: nested out-of-fold macro-F1, mean over languages, one change each.

Usage: POLAR_DATA_DIR=... python benchmarks/linear_settings.py [--jobs 2]

Beside each change stands its mean difference to the defaults, with the standard error over the languages.
"""

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.factory import make_backbone
from polar_pipeline.decision.decide import decide
from polar_pipeline.defs.project import Project
from polar_pipeline.errors import InputError
from polar_pipeline.storage.home import Home

CHANGES = {
    "the defaults": {},
    "no word n-grams": {"shares": (0.0, 1.0, 1.0)},
    "no n-grams inside words": {"shares": (0.8, 0.0, 1.0)},
    "no cased n-grams": {"shares": (0.8, 1.0, 0.0)},
    "no surface features": {"surface_share": 0.0},
    "regularisation 0.2": {"regularisation": 0.2},
    "regularisation 1.0": {"regularisation": 1.0},
}


def measure(code: str) -> list[float]:
    """Nested macro-F1 of one language under each change."""
    project = Project.load("cpu")
    profile = project.profile
    posts = project.posts(code)
    found = []
    for change in CHANGES.values():
        with tempfile.TemporaryDirectory() as folder:
            backbone = make_backbone(
                profile.backbones[0].model_copy(update=change), profile, project.card, Home(Path(folder))
            )
            ref = backbone.train(code, posts, Progress())
            scores = backbone.score(code, ref, posts)
        found.append(decide(code, posts, scores, profile, {backbone.name: ref.sha256}, "benchmark").out_of_fold.value)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    codes = Project.load("cpu").codes
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        found = np.array(list(pool.map(measure, codes)))
    print(f"{'':26}macro-F1  difference  standard error   ({len(codes)} languages)")
    for name, values in zip(CHANGES, found.T, strict=True):
        difference = values - found[:, 0]
        error = difference.std(ddof=1) / np.sqrt(len(codes))
        print(f"{name:26}  {values.mean():.4f}  {difference.mean():+10.4f}  {error:14.4f}")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:  # no official data
        raise SystemExit(str(error)) from None
