"""A language's scores, laid out by backbone and seed beside its posts.

What does not belong here: judging them (`screening`), weights and thresholds.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.storage.fingerprint import frame_fingerprint


class MemberScores(NamedTuple):
    """Logits of one backbone: float64 (posts, seeds), rows as the posts they were gathered for."""

    backbone: str
    seeds: tuple[int, ...]
    logits: Floats

    def rows(self, which: "np.typing.NDArray[np.bool_]") -> "MemberScores":
        """Those of some posts; `which` is a mask (posts,)."""
        return self._replace(logits=self.logits[which])


def scores_sha256(scores: pd.DataFrame) -> dict[str, str]:
    """The sha256 of each backbone's scores, whatever the order of the table's rows."""
    ordered = scores.sort_values(["backbone", "seed", "split", "id"], kind="stable")
    columns = ["seed", "split", "fold", "id", "logit"]
    return {str(name): frame_fingerprint(rows, columns) for name, rows in ordered.groupby("backbone", sort=True)}


def gather(posts: pd.DataFrame, scores: pd.DataFrame, backbones: list[str], language: str) -> list[MemberScores]:
    """Scores of `backbones` for `posts` (split, id), whatever the order of the table's rows.

    A backbone without any score is left out: it does not speak this language. Raises InputError when one scored some
    posts only, or gave a logit that is not finite.
    """
    index = pd.MultiIndex.from_frame(posts[["split", "id"]])
    found = []
    for backbone in sorted(backbones):
        mine = scores[scores["backbone"] == backbone]
        if mine.empty:
            continue
        table = mine.pivot(index=["split", "id"], columns="seed", values="logit").reindex(index)
        logits = table.to_numpy(dtype=float)
        bad = ~np.isfinite(logits).all(axis=1)
        if bad.any():
            raise InputError(
                f"scores of backbone {backbone!r} for {language} lack a finite logit for {int(bad.sum())} posts, first "
                f"{posts['id'].to_numpy()[bad][0]!r}: materialize {backbone}_dev_probabilities for {language} again."
            )
        found.append(MemberScores(backbone, tuple(int(seed) for seed in table.columns), logits))
    if not found:
        raise InputError(f"no backbone has scores for {language}: add one that does to the profile.")
    return found
