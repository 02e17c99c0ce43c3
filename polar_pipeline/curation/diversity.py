"""How varied synthetic posts are beside real ones, and a few of both to look at.

Distinct n-grams are those of Li et al. 2016 (distinct-1, distinct-2): different n-grams over all n-grams. They fall as
texts are added, so both sides are samples of one size. The cosine is the mean over all pairs of texts, by character
n-grams: 1 is the same text again and again.
"""

import hashlib
import itertools
from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.corpus.posts import REAL
from polar_pipeline.curation.curate import SHARE
from polar_pipeline.curation.embedding import NgramEmbedder

_SAMPLE = 500  # texts of each side
_EXAMPLES = 3  # of each side and label in a gallery
_SHORTEST = 280  # characters of an example that are shown


class Diversity(NamedTuple):
    """Of a sample of texts: shares of distinct words and pairs of words, and the mean cosine of two texts."""

    texts: int
    distinct_1: float
    distinct_2: float
    cosine: float


def diversity(table: pd.DataFrame) -> dict[str, Diversity]:
    """Of real training posts and of the synthetic posts that curation let pass, in samples of one size.

    `table` is that of curation. Empty without two such synthetic posts; whether training takes them does not matter.
    """
    passed = table[_passed(table)]
    sides = {
        "real": passed[(passed["source"] == REAL) & (passed["split"] == "train")],
        "synthetic": passed[passed["source"] != REAL],
    }
    size = min(_SAMPLE, *(len(side) for side in sides.values()))
    return {name: measure(_sample(side, size)["text"].tolist()) for name, side in sides.items()} if size > 1 else {}


def measure(texts: list[str]) -> Diversity:
    """The diversity of at least two texts. Words of scripts without blanks are their characters."""
    words = [_words(text.casefold()) for text in texts]
    pairs = [list(itertools.pairwise(one)) for one in words]
    vectors = NgramEmbedder().embed(texts).astype(float)
    count = len(texts)
    whole = vectors.sum(axis=0)
    cosine = (float(whole @ whole) - float(np.sum(vectors * vectors))) / (count * (count - 1))
    return Diversity(count, _distinct(words), _distinct(pairs), cosine)


def gallery(table: pd.DataFrame) -> list[dict[str, object]]:
    """A few real and synthetic posts, side by side, for each label; the same ones each time.

    Synthetic posts that passed come first; where there are fewer, rejected ones show what curation objects to. Keys:
    label, real, synthetic, source and stage (that rejected it, "" for none) of the synthetic post. Texts are shortened,
    and data: escape them.
    """
    shown = table[(table["split"] == "train") & table["label"].notna()].assign(passed=_passed)
    found: list[dict[str, object]] = []
    for label, group in shown.groupby("label", sort=True):
        real, made = group[(group["source"] == REAL) & group["passed"]], group[group["source"] != REAL]
        synthetic = pd.concat([_sample(part, _EXAMPLES) for part in (made[made["passed"]], made[~made["passed"]])])
        for one, other in zip(_sample(real, _EXAMPLES).itertuples(), synthetic.itertuples(), strict=False):
            texts = {"real": _shortened(str(one.text)), "synthetic": _shortened(str(other.text))}
            stage = "" if other.passed else str(other.stage)
            found.append({"label": int(str(label)), **texts, "source": str(other.source), "stage": stage})
    return found


def _passed(table: pd.DataFrame) -> "pd.Series[bool]":
    """Which rows no stage objects to but the share."""
    return table["keep"].astype(bool) | (table["stage"] == SHARE)


def _sample(posts: pd.DataFrame, size: int) -> pd.DataFrame:
    """As many posts, chosen by the hashes of their ids: the same in any order of rows."""
    order = posts["id"].map(lambda name: hashlib.sha256(str(name).encode()).hexdigest())
    return posts.assign(order=order).sort_values("order").head(size)


def _words(text: str) -> list[str]:
    words = text.split()
    return words if len(words) > len(text) / 20 else list("".join(words))


def _distinct(items: list[list[str]] | list[list[tuple[str, str]]]) -> float:
    everything = [item for one in items for item in one]
    return len(set(everything)) / max(len(everything), 1)


def _shortened(text: str) -> str:
    return text if len(text) <= _SHORTEST else text[: _SHORTEST - 1] + "…"
