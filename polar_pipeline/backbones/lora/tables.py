"""From an adapter's logits to scores tables, and the texts that need logits. What does not belong here: computing any."""

from typing import Any

import numpy as np
import pandas as pd

from polar_pipeline.backbones.base import no_scores, real_posts, scores_table
from polar_pipeline.backbones.lora.language import probe_rows
from polar_pipeline.corpus.folds import scored_posts
from polar_pipeline.metrics.scores import Floats

Tensors = dict[str, np.typing.NDArray[Any]]


def score_tables(posts: pd.DataFrame, tensors: Tensors, rest: Floats, backbone: str, language: str) -> pd.DataFrame:
    """The scores table of all real posts: `tensors` has seeds and out_of_fold, `rest` (seeds, posts outside folds)."""
    posts = scored_posts(real_posts(posts))
    inside = (posts["fold"] >= 0).to_numpy()
    tables = []
    for place, seed in enumerate(tensors["seeds"].tolist()):
        logits: Floats = np.zeros(len(posts))
        logits[inside], logits[~inside] = tensors["out_of_fold"][place], rest[place]
        tables.append(scores_table(posts, logits, backbone=backbone, seed=seed, language=language))
    return pd.concat(tables, ignore_index=True) if tables else no_scores(posts, backbone, language)


def probe_tables(posts: pd.DataFrame, tensors: Tensors, backbone: str, language: str) -> pd.DataFrame:
    """The scores table of the probed rows, of those seeds whose final model has a probe in `tensors`."""
    rows = posts.iloc[probe_rows(posts)]
    tables = [
        scores_table(rows, tensors[key], backbone=backbone, seed=seed, language=language)
        for seed in tensors["seeds"].tolist()
        if (key := probe_key(seed)) in tensors
    ]
    return pd.concat(tables, ignore_index=True) if tables else no_scores(posts, backbone, language)


def probe_key(seed: int) -> str:
    """The tensor of what a seed's final model gave the probed rows."""
    return f"probe.final-seed-{seed}"


def texts_outside(posts: pd.DataFrame) -> list[str]:
    """Texts of the real posts outside folds that need scores."""
    real = scored_posts(real_posts(posts))
    texts: list[str] = real.loc[(real["fold"] < 0).to_numpy(), "text"].tolist()
    return texts
