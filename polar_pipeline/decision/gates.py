"""Gates: what is so wrong with a freshly trained model that nothing should be decided with it.

Screening leaves a broken model out and goes on with the others; a gate stops, because the one who trained it should know. Labels of
dev, where it is outside the folds, are looked at here and only here: a gate can stop a language, it chooses nothing.
"""

import numpy as np
import pandas as pd

from polar_pipeline.decision.members import gather
from polar_pipeline.decision.screening import Rows, fault, knows, rows_of
from polar_pipeline.metrics.scores import Floats, Ints, auc, macro_f1, macro_f1_curve

_ERRORS = 4.0  # standard errors beyond which a fall is not bad luck


def unsound(posts: pd.DataFrame, scores: pd.DataFrame, language: str, transductive: bool) -> list[str]:
    """A sentence for every model (backbone and seed) that is broken; none where there are no scores.

    `posts` has split, id, fold and label; `transductive` is whether logits of test may be looked at.
    """
    if scores.empty:
        return []
    rows = rows_of(posts, transductive)
    dev = ((posts["split"] == "dev") & posts["label"].notna() & (posts["fold"] < 0)).to_numpy(dtype=bool)
    labels = posts["label"][dev].to_numpy(dtype=int)
    found = []
    for member in gather(posts, scores, sorted(scores["backbone"].unique()), language):
        for place, seed in enumerate(member.seeds):
            logits = member.logits[:, place]
            reason = fault(logits, rows) or _far_below(logits, rows, dev, labels) or _one_class(logits, rows)
            if reason:
                found.append(f"{member.backbone} seed {seed}: {reason}")
    return found


def _far_below(logits: Floats, rows: Rows, dev: "np.typing.NDArray[np.bool_]", labels: Ints) -> str:
    """The final model on dev, at the folds' threshold, beside the folds. Nothing without folds, or without dev outside them."""
    if not rows.final.any() or len(set(labels.tolist())) < 2:
        return ""
    if not knows(auc(rows.labels, logits[rows.inside]), rows.labels):
        return ""
    curve = macro_f1_curve(rows.labels, logits[rows.inside])
    best = int(np.argmax(curve.values))
    expected, threshold = float(curve.values[best]), curve.thresholds[best]
    score = macro_f1(labels, (logits[dev] >= threshold).astype(int))
    # that of an accuracy of one half, the widest there is, on as many posts as the smaller class allows
    error = 0.5 * np.sqrt(1 / _balanced(labels) + 1 / _balanced(rows.labels))
    if score >= expected - _ERRORS * error:
        return ""
    return f"the final model has macro-F1 {score:.2f} on dev, its folds {expected:.2f}"


def _balanced(labels: Ints) -> int:
    """How many posts there would be if the larger class were as small as the other."""
    return 2 * int(min(labels.sum(), len(labels) - labels.sum()))


def _one_class(logits: Floats, rows: Rows) -> str:
    """Without folds there is nothing to hold a model beside: it should at least tell some posts from others."""
    inside = logits[rows.inside]
    if rows.final.any() or (inside >= 0).any() != (inside >= 0).all():
        return ""
    return f"it puts all {len(inside)} posts of dev into one class"
