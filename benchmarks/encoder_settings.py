"""The evidence for the encoder's defaults: nested out-of-fold macro-F1 beside the linear backbone, one change each.

Usage: POLAR_DATA_DIR=... python benchmarks/encoder_settings.py [FOLDER] [--jobs 2] [--languages deu swa]

FOLDER holds the model, such as a copy of intfloat/multilingual-e5-small; left out, it is $POLAR_TEST_E5. Every line is
a mean over languages: the AUC of the encoder's main head alone, and the nested macro-F1 of the decision that it makes
together with the linear backbone; then the mean difference to the defaults, and its standard error over the languages.
"""

import argparse
import os
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from polar_pipeline.backbones.base import Backbone, Progress, real_posts
from polar_pipeline.backbones.factory import make_backbone
from polar_pipeline.decision.decide import decide
from polar_pipeline.defs.project import Project
from polar_pipeline.metrics.scores import auc
from polar_pipeline.settings.backbones import EncoderSettings, LinearSettings
from polar_pipeline.storage.home import Home
from polar_pipeline.task.card import MAIN_HEAD

CHANGES: dict[str, dict[str, Any]] = {
    "the defaults": {},
    "the last layer only": {"layers": ()},
    "layers 4, 6, 8, 10 and 12": {"layers": (4, 6, 8, 10)},
    "layers 8, 10 and 12": {"layers": (8, 10)},
    "logistic regression": {"head": "logistic", "penalties": (100.0,)},
    "kernel width 0.25": {"widths": (0.25,)},
    "kernel width 1": {"widths": (1.0,)},
    "penalty 0.5": {"penalties": (0.5,)},
    "penalty 2": {"penalties": (2.0,)},
    "width and penalty chosen": {"widths": (0.25, 0.5, 1.0), "penalties": (0.5, 1.0, 2.0)},
    "float32": {"precision": "float32"},
    "int8": {"precision": "int8"},
}


def measure(given: tuple[str, str]) -> list[tuple[float, float]]:
    """AUC and nested macro-F1 of one language under each change."""
    code, folder = given
    project = Project.load("cpu", {**os.environ, "POLAR_HOME": tempfile.mkdtemp()})
    profile, card, posts = project.profile, project.card, project.posts(code)
    defaults = EncoderSettings(name="encoder", kind="encoder", model=folder, prompt="query: ", layers=(6, 9))
    linear = scores_of(make_backbone(LinearSettings(), profile, card, project.home), code, posts)
    found = []
    for change in CHANGES.values():
        backbone = make_backbone(defaults.model_copy(update=change), profile, card, Home(project.home.root))
        mine = scores_of(backbone, code, posts)
        names = {"linear": "0" * 64, "encoder": "1" * 64}
        decision = decide(code, posts, pd.concat([linear, mine]), profile, names, "benchmark")
        inside = (real_posts(posts)["fold"] >= 0).to_numpy()
        logits = mine[mine["head"] == MAIN_HEAD]["logit"].to_numpy()[inside]
        found.append((auc(posts["label"][inside].to_numpy(dtype=int), logits), decision.out_of_fold.value))
    return found


def scores_of(backbone: Backbone, code: str, posts: pd.DataFrame) -> pd.DataFrame:
    return backbone.score(code, backbone.train(code, posts, Progress()), posts)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=os.environ.get("POLAR_TEST_E5"))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--languages", nargs="*")
    arguments = parser.parse_args()
    if not arguments.folder or "POLAR_DATA_DIR" not in os.environ:
        sys.exit("encoder_settings: give the folder of a model, and set POLAR_DATA_DIR to the official release.")
    codes = arguments.languages or Project.load("cpu").codes
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        found = np.array(list(pool.map(measure, [(code, str(Path(arguments.folder).resolve())) for code in codes])))
    print(f"{'':28}   AUC  macro-F1  difference  standard error   ({len(codes)} languages)")
    for name, values in zip(CHANGES, found.transpose(1, 0, 2), strict=True):
        difference = values[:, 1] - found[:, 0, 1]
        error = difference.std(ddof=1) / np.sqrt(len(codes)) if len(codes) > 1 else 0.0
        means = values.mean(axis=0)
        print(f"{name:28}{means[0]:.4f}  {means[1]:8.4f}  {difference.mean():+10.4f}  {error:14.4f}", flush=True)


if __name__ == "__main__":
    main()
