"""What a decision does about test posts that are not like the labelled ones (covariate shift).

Rate matching looks at the unlabelled test posts together, so it is transductive; it is used only where the train-or-test AUC
says that the scores' level means nothing there. Estimating the prior by EM (Saerens et al. 2002) is not offered: it assumes
that texts of a class are alike in train and test, which is what such a shift breaks.
"""

import numpy as np

from polar_pipeline.decision.members import MemberScores
from polar_pipeline.metrics.scores import Floats
from polar_pipeline.settings.decision import DecisionSettings

NONE, RATE_MATCHING, POOLED = "none", "rate_matching", "pooled"


def shift_response(auc: float, settings: DecisionSettings) -> str:
    """What this language's shift asks for, by the profile."""
    strong = auc >= settings.shift_response_auc
    return settings.shift_response if strong and settings.transductive else NONE


def pooled_members(members: list[MemberScores], pooled: frozenset[str]) -> list[MemberScores]:
    """Those trained on all languages, which have seen more kinds of posts than one language has; all, if none is."""
    return [member for member in members if member.backbone in pooled] or members


def matching_threshold(probabilities: Floats, share: float) -> float:
    """The threshold that calls `share` of these posts positive, as nearly as ties allow."""
    ordered = np.sort(np.asarray(probabilities, dtype=float))
    cuts = np.concatenate([[0], np.flatnonzero(ordered[1:] > ordered[:-1]) + 1, [len(ordered)]])
    below = int(cuts[np.argmin(np.abs(len(ordered) - cuts - share * len(ordered)))])
    if below == 0:
        return 0.0
    if below == len(ordered):
        return float(np.nextafter(1.0, 2.0))
    middle = (ordered[below - 1] + ordered[below]) / 2
    return float(middle if middle > ordered[below - 1] else ordered[below])
