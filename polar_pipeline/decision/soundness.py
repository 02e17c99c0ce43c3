"""Soundness: what is so wrong with a freshly trained model that nothing should be decided with it.

Screening leaves a broken model out and goes on with the others; this stops, because the one who trained it should know. Labels of
dev, where it is outside the folds, are looked at here and only here: they can stop a language, and choose nothing. Where dev is in the
folds, the final model has been trained on it, and should know it at least as well as the folds, which have not.
"""

import numpy as np
import pandas as pd

from polar_pipeline.decision.members import gather
from polar_pipeline.decision.screening import Rows, auc_error, fault, knows, rows_of, shrunk
from polar_pipeline.metrics.scores import Floats, Ints, auc, macro_f1, macro_f1_curve

_ERRORS = 4.0  # standard errors beyond which a fall is not bad luck
_SEEN_ERRORS = 2.0  # on posts that it was trained on: errors of the same posts, most of which both share
_FEW = 5  # posts that may be on one side of a threshold by chance alone


def unsound(
    posts: pd.DataFrame,
    scores: pd.DataFrame,
    language: str,
    transductive: bool,
    probes: pd.DataFrame | None = None,
) -> list[str]:
    """A sentence for every model (backbone and seed) that is broken; none where there are no scores.

    `posts` has split, id, fold and label; `transductive` is whether logits of test may be looked at. `probes` is a scores table of
    what final models give some posts; those in folds they were trained on.
    """
    if scores.empty:
        return []
    inside = None if probes is None else probes[probes["fold"] >= 0]
    rows = rows_of(posts, transductive)
    dev = ((posts["split"] == "dev") & posts["label"].notna() & (posts["fold"] < 0)).to_numpy(dtype=bool)
    labels = posts["label"][dev].to_numpy(dtype=int)
    found = []
    for member in gather(posts, scores, sorted(scores["backbone"].unique()), language):
        for place, seed in enumerate(member.seeds):
            logits = member.logits[:, place]
            reason = fault(logits, rows) or _far_below(logits, rows, dev, labels) or _one_class(logits, rows)
            if not reason and inside is not None:
                mine = inside[(inside["backbone"] == member.backbone) & (inside["seed"] == seed)]
                reason = _below_unseen(logits, rows, posts, mine)
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


def _below_unseen(logits: Floats, rows: Rows, posts: pd.DataFrame, probes: pd.DataFrame) -> str:
    """The final model on posts that it has seen, beside the folds on the same posts, which they have not: it should be no worse."""
    if probes.empty:
        return ""
    places = posts.reset_index(drop=True).reset_index().set_index(["split", "id"])["index"]
    same = places[pd.MultiIndex.from_frame(probes[["split", "id"]])].to_numpy()
    seen, unseen, inside = probes["logit"].to_numpy(dtype=float), logits[same], logits[rows.inside]
    if reason := shrunk(inside, seen, rows):
        return f"{reason}, on posts that it was trained on"
    labels = posts["label"].to_numpy(dtype=int, na_value=-1)[same]
    if len(set(labels.tolist())) < 2 or not knows(auc(rows.labels, inside), rows.labels):
        return ""
    curve = macro_f1_curve(rows.labels, inside)
    threshold = curve.thresholds[int(np.argmax(curve.values))]
    above = [(found >= threshold).astype(int) for found in (seen, unseen)]
    if len(set(above[0].tolist())) == 1 and _rarer(above[1]) >= _FEW:
        return f"the final model puts all {len(labels)} posts of a sample that it was trained on into one class"
    text = f"the final model has {{}} {{:.2f}} on {len(labels)} posts that it was trained on, its folds, which were not, {{:.2f}}"
    ranks = auc(labels, seen), auc(labels, unseen)
    fall = (ranks[1] - ranks[0]) / auc_error(labels)
    # where the folds do better than chance and it does not, half of that is enough
    lost = knows(ranks[1], labels) and not knows(ranks[0], labels)
    if fall > (_SEEN_ERRORS / 2 if lost else _SEEN_ERRORS):
        return text.format("AUC", *ranks)
    scores = [macro_f1(labels, found) for found in above]
    if scores[0] < scores[1] - _ERRORS * 0.5 * np.sqrt(1 / _balanced(labels)):
        return text.format("macro-F1", *scores)
    return ""


def _rarer(labels: Ints) -> int:
    """Posts of the smaller class."""
    return int(min(labels.sum(), len(labels) - labels.sum()))


def _balanced(labels: Ints) -> int:
    """How many posts there would be if the larger class were as small as the other."""
    return 2 * _rarer(labels)


def _one_class(logits: Floats, rows: Rows) -> str:
    """Without folds there is nothing to hold a model beside: it should at least tell some posts from others."""
    inside = logits[rows.inside]
    if rows.final.any() or (inside >= 0).any() != (inside >= 0).all():
        return ""
    return f"it puts all {len(inside)} posts of dev into one class"
