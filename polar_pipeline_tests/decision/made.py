"""Made-up posts and scores for the tests of decisions: labels that some models know better than others."""

import numpy as np
import pandas as pd

from polar_pipeline.decision.strategies import MemberScores
from polar_pipeline.metrics.scores import Floats, Ints


def make_posts(posts: int = 300, seed: int = 0) -> pd.DataFrame:
    """Train in five folds, dev and test outside; labels of test are missing."""
    generator = np.random.default_rng(seed)
    split = np.repeat(["train", "dev", "test"], [posts, posts // 10, posts // 2])
    label = pd.array(generator.integers(0, 2, len(split)), dtype="Int8")
    label[split == "test"] = pd.NA
    fold = np.where(split == "train", np.arange(len(split)) % 5, -1)
    return pd.DataFrame({"id": [f"x_{i}" for i in range(len(split))], "split": split, "fold": fold, "label": label})


def truth(posts: pd.DataFrame, seed: int = 0) -> Floats:
    """Labels of all posts as -1 and 1, those of test made up."""
    made_up = np.random.default_rng(seed).integers(0, 2, len(posts))
    return 2.0 * posts["label"].fillna(pd.Series(made_up)).to_numpy(dtype=float) - 1


def member(posts: pd.DataFrame, name: str, seeds: int = 1, noise: float = 1.0) -> MemberScores:
    """A backbone whose models know the label up to noise of their own."""
    generator = np.random.default_rng(sum(map(ord, name)))
    signal = truth(posts)[:, None]
    return MemberScores(name, tuple(range(seeds)), signal + noise * generator.normal(size=(len(posts), seeds)))


def log_loss(labels: Ints, logits: Floats) -> float:
    """Mean negative log likelihood of labels 0/1 under sigmoid(logits), in nats."""
    return float(np.mean(np.logaddexp(0.0, np.where(labels == 1, -logits, logits))))
