"""Diagnostics of one language's decision: a threshold tuned on dev, how far test scores are, review, and errors.

Tables here have split, id, text, label, fold, probability, prediction, margin and review of each post, and `nested`:
the prediction of a decision that never saw the post, for those posts that decisions are made on.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from polar_pipeline.decision.thresholds import best_threshold
from polar_pipeline.metrics.scores import Floats, Ints, macro_f1

ERROR_COLUMNS = ["language", "split", "id", "post", "label", "prediction", "probability", "fold", "margin"]
ERROR_COLUMNS += ["final_prediction"]
_LONGEST = 280  # characters of an example; the rest says little and fills the page


class DevTuned(NamedTuple):
    """A threshold tuned on dev, for comparison only: its gain on dev, and its gain on other posts."""

    threshold: float
    gain_on_dev: float  # macro-F1, over the decision's threshold
    gain_elsewhere: float  # on the decided posts outside dev


class Review(NamedTuple):
    """The posts marked for review, among those that were decided on."""

    share: float
    share_of_errors: float
    macro_f1_of_rest: float


class Mistake(NamedTuple):
    """A wrong prediction far from the threshold. `text` is the post, at most 280 characters of it."""

    id: str
    text: str
    label: int
    probability: float


def score_distance(decided: Floats, test: Floats) -> float | None:
    """Kolmogorov-Smirnov distance between two sets of probabilities: 0 when alike, 1 when apart. None without test."""
    if not len(test):
        return None
    from scipy.stats import ks_2samp

    return float(ks_2samp(decided, test).statistic)


def dev_tuned(decided: pd.DataFrame, dev: pd.DataFrame) -> DevTuned | None:
    """The best threshold on `dev`, its gain there and on the posts of `decided` outside dev. None without either."""
    elsewhere = decided[decided["split"] != "dev"]
    if dev.empty or elsewhere.empty:
        return None
    labels = dev["label"].to_numpy(dtype=int)
    threshold = best_threshold(labels, dev["probability"].to_numpy(dtype=float))
    others = elsewhere["label"].to_numpy(dtype=int)
    return DevTuned(
        threshold,
        macro_f1(labels, _int(dev["probability"] >= threshold))
        - macro_f1(labels, dev["prediction"].to_numpy(dtype=int)),
        macro_f1(others, _int(elsewhere["probability"] >= threshold))
        - macro_f1(others, elsewhere["nested"].to_numpy(dtype=int)),
    )


def review(decided: pd.DataFrame) -> Review:
    """The share of errors among the marked posts, and the macro-F1 of the others."""
    marked = decided["review"].to_numpy(dtype=bool)
    wrong = (decided["nested"] != decided["label"]).to_numpy(dtype=bool)
    rest = decided[~marked]
    return Review(
        float(marked.mean()),
        float(np.sum(wrong & marked) / max(wrong.sum(), 1)),
        macro_f1(rest["label"].to_numpy(dtype=int), rest["nested"].to_numpy(dtype=int)),
    )


def errors(language: str, judged: pd.DataFrame) -> pd.DataFrame:
    """All labelled posts with a wrong prediction, in the order of `judged`: `ERROR_COLUMNS`.

    `prediction` is the nested one where there is one, as the headline macro-F1 counts it, else that of the final
    threshold, which `final_prediction` always is. Near the threshold the two can differ.
    """
    table = judged[judged["label"].notna()]
    table = table.assign(language=language, post=table["text"], final_prediction=table["prediction"])
    table = table.assign(prediction=table["nested"].fillna(table["prediction"]).astype("int8"))
    return table.loc[(table["label"] != table["prediction"]).astype(bool), ERROR_COLUMNS].reset_index(drop=True)


def mistakes(decided: pd.DataFrame, count: int) -> tuple[Mistake, ...]:
    """The `count` wrong predictions farthest from the threshold, half of each label; ties go by id."""
    wrong = decided[decided["nested"] != decided["label"]].sort_values(["margin", "id"], ascending=[False, True])
    chosen = [wrong[wrong["label"] == label].head(share) for label, share in ((1, (count + 1) // 2), (0, count // 2))]
    rows = pd.concat(chosen)
    return tuple(
        Mistake(str(post), _cut(str(text)), int(label), float(probability))
        for post, text, label, probability in zip(
            rows["id"], rows["text"], rows["label"], rows["probability"], strict=True
        )
    )


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _int(flags: "pd.Series[bool]") -> Ints:
    return flags.to_numpy().astype(np.int64)
