"""Posts a second of the encoder beside `SentenceTransformer.encode` of the same model, and what each precision costs.

Usage: POLAR_DATA_DIR=... python benchmarks/encoder_speed.py [FOLDER] [--posts 100] [--languages deu swa zho]

FOLDER holds the model, such as a copy of intfloat/multilingual-e5-small; left out, it is $POLAR_TEST_E5. Both embed the
first `--posts` train posts of all 22 languages with one thread, in turn in one process, after a warm-up. What a
precision costs is the macro-F1 of the encoder backbone out of fold, with the threshold that is best in hindsight, in
the languages named; float32 is the reference.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from polar_pipeline.backbones.base import Progress, real_posts
from polar_pipeline.backbones.encoder.backbone import EncoderBackbone
from polar_pipeline.decision.thresholds import best_threshold
from polar_pipeline.defs.project import Project
from polar_pipeline.metrics.scores import Floats, macro_f1
from polar_pipeline.pretrained.encoder import Encoder
from polar_pipeline.pretrained.encoder_loading import fastest_precision
from polar_pipeline.settings.backbones import EncoderSettings
from polar_pipeline.task.card import MAIN_HEAD

PROMPT = "query: "
PRECISIONS = ("float32", "bfloat16", "int8")


def settings(folder: str, precision: str) -> EncoderSettings:
    chosen: dict[str, Any] = {"model": folder, "prompt": PROMPT, "layers": [6, 9], "precision": precision}
    return EncoderSettings(name="encoder", kind="encoder", device="cpu", **chosen)


def speed(folder: str, texts: list[str]) -> None:
    """Print posts a second of both, and how near the vectors are."""
    torch.set_num_threads(1)
    peer = SentenceTransformer(folder, device="cpu")
    started, expected = 0.0, np.zeros(0)
    for some in (texts[:64], texts):  # the first is a warm-up
        started = time.perf_counter()
        expected = peer.encode([PROMPT + text for text in some], show_progress_bar=False)
    before = len(texts) / (time.perf_counter() - started)
    print(f"{'SentenceTransformer.encode':28}{before:7.1f} posts/s")
    with tempfile.TemporaryDirectory() as bases:
        for precision in PRECISIONS:
            encoding = settings(folder, precision).encoding._replace(layers=())
            encoder = Encoder(encoding, Path(bases))
            encoder.embed(texts[:64])
            started = time.perf_counter()
            found = encoder.embed(texts)
            rate = len(texts) / (time.perf_counter() - started)
            print(f"{precision:28}{rate:7.1f} posts/s {rate / before:6.2f} times  cosine {cosine(found, expected):.5f}")


def cosine(left: Floats, right: Floats) -> float:
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return float(np.mean((left * right).sum(axis=1) / norms))


def loss(folder: str, languages: list[str], project: Project) -> None:
    """Print the macro-F1 of each precision, mean of the languages."""
    card, seed, folds = project.card, project.profile.seed, project.profile.folds.count
    for precision in PRECISIONS:
        found = []
        for code in languages:
            with tempfile.TemporaryDirectory() as home:
                backbone = EncoderBackbone(
                    settings(folder, precision), seed, folds, card, Path(home), Path(home) / "embeddings"
                )
                posts = project.posts(code)
                scores = backbone.score(code, backbone.train(code, posts, Progress()), posts)
            inside = (real_posts(posts)["fold"] >= 0).to_numpy()
            logits = scores[scores["head"] == MAIN_HEAD]["logit"].to_numpy()[inside]
            labels = posts["label"][inside].to_numpy(dtype=int)
            probabilities = 1 / (1 + np.exp(-logits))
            found.append(macro_f1(labels, (probabilities >= best_threshold(labels, probabilities)).astype(int)))
        print(f"{precision:28}macro-F1 {np.mean(found):.4f} ({', '.join(languages)})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=os.environ.get("POLAR_TEST_E5"))
    parser.add_argument("--posts", type=int, default=100)
    parser.add_argument("--languages", nargs="*", default=["deu", "swa", "zho"])
    given = parser.parse_args()
    if not given.folder or "POLAR_DATA_DIR" not in os.environ:
        sys.exit("encoder_speed: give the folder of a model, and set POLAR_DATA_DIR to the official release.")
    project = Project.load("cpu", {**os.environ, "POLAR_HOME": tempfile.mkdtemp()})
    texts = [text for code in project.codes for text in project.posts(code)["text"].head(given.posts)]
    print(f"{len(texts)} posts, one thread; fastest here by its instructions: {fastest_precision('cpu')}")
    speed(given.folder, texts)
    loss(given.folder, given.languages, project)


if __name__ == "__main__":
    main()
