"""What each part of a decision is worth: the same decision with one thing changed, cross-fitted, on the same posts.

What does not belong here: choosing; nothing is decided by these figures.
"""

from polar_pipeline.decision.members import MemberScores
from polar_pipeline.decision.record import Candidate
from polar_pipeline.decision.selection import candidate, cross_fitted, quick_rule
from polar_pipeline.decision.strategies import strategies
from polar_pipeline.decision.thresholds import RULES
from polar_pipeline.metrics.scores import Ints
from polar_pipeline.settings.decision import DecisionSettings


def without_each(
    strategy: str, labels: Ints, folds: Ints, members: list[MemberScores], settings: DecisionSettings, seed: int
) -> tuple[Candidate, ...]:
    """The strategy without each member in turn; a member that helps leaves a negative difference. None for one alone."""
    if strategy in {member.backbone for member in members}:
        return ()
    rule = quick_rule(settings)
    whole = cross_fitted(strategy, labels, folds, members, rule)
    found = []
    for member in members:
        rest = [other for other in members if other is not member]
        left = strategy if strategy in strategies(rest) else rest[0].backbone
        found.append(candidate(member.backbone, labels, cross_fitted(left, labels, folds, rest, rule), whole, seed))
    return tuple(found)


def each_rule(
    strategy: str, labels: Ints, folds: Ints, members: list[MemberScores], settings: DecisionSettings, seed: int
) -> tuple[Candidate, ...]:
    """The strategy with each threshold rule; the reference is the profile's."""
    decided = {rule: cross_fitted(strategy, labels, folds, members, rule, settings.resamples, seed) for rule in RULES}
    reference = decided[settings.threshold]
    return tuple(candidate(rule, labels, predictions, reference, seed) for rule, predictions in decided.items())
