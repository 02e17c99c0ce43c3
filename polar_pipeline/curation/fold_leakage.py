"""Fold leakage: was a synthetic post made from a post that is held out where it is trained on?

Every real post that it was made from, or whose text its request showed, must be a row of train in the same fold.
Otherwise out-of-fold scores would be too high. Ids that no row has are leaks too, because they cannot be traced. Posts
of a file may name none: they are then compared with the real posts, and follow the one that they are like.
"""

import json
from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

from polar_pipeline.corpus.posts import REAL
from polar_pipeline.curation.dedup import nearest
from polar_pipeline.curation.embedding import NgramEmbedder
from polar_pipeline.metrics.scores import Ints
from polar_pipeline.synthesis import from_file

# Cosine of character n-grams. Of copies with a third of the words replaced most are above it, and of real posts that
# have nothing to do with each other one in ten to twenty, which does no harm: any fold would do for such a post.
_LEAST_ALIKE = 0.4
_BLOCK = 4096  # texts embedded together


def fold_leaks(table: pd.DataFrame) -> str:
    """A sentence about the number of leaking synthetic posts and the first of them; "" if there are none.

    `table` holds real and synthetic posts, the latter with `shown`.
    """
    real, made = table[table["source"] == REAL], table[table["source"] != REAL]
    training = real[real["split"] == "train"]
    folds = {str(row): int(fold) for row, fold in zip(training["id"], training["fold"], strict=True)}
    held_out = {str(row) for row in real.loc[real["split"] != "train", "id"]} - set(folds)
    if len(made) and "shown" not in made:
        return f"{len(made)} synthetic posts do not say which posts their requests showed: make synthetic_posts again"
    found = [(str(row["id"]), _leak(row, folds, held_out)) for row in made.to_dict("records")]
    wrong = [(post, leak) for post, leak in found if leak]
    return f"{len(wrong)} synthetic posts; the first, {wrong[0][0]}, {wrong[0][1]}" if wrong else ""


def likely_parents(texts: list[str], real: list[str]) -> Ints:
    """The place in `real` of the text that each text is most like, int64 (texts,); -1 where it is like none."""
    embedder = NgramEmbedder()
    others, blocks = embedder.embed(real), [texts[at : at + _BLOCK] for at in range(0, len(texts), _BLOCK)]
    found = [nearest(embedder.embed(block), others, _LEAST_ALIKE) for block in blocks]
    return np.concatenate([*found, np.zeros(0, dtype=np.int64)])


def _leak(row: dict[Hashable, Any], folds: dict[str, int], held_out: set[str]) -> str:
    fold = int(str(row["fold"]))
    if row["split"] != "train" or fold < 0:
        return "is not of train, or of no fold"
    shown, parent = row["shown"], row["parent_id"]
    sources: list[str] = json.loads(shown) if isinstance(shown, str) and shown else []
    # the parent of a pair is a made-up id that no post has
    if isinstance(parent, str) and parent and (row["source"] != "contrast" or parent in folds or parent in held_out):
        sources.append(parent)
    if not sources and row["source"] != from_file.SOURCE:
        return "does not say what it was made from"
    for source in sources:
        if source in held_out:
            return f"was made from {source}, which is not of train"
        if source not in folds:
            return f"was made from {source}, which no row has"
        if folds[source] != fold:
            return f"is of fold {fold}, and was made from {source} of fold {folds[source]}"
    return ""
