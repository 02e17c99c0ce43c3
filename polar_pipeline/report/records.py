"""What the report and the export show of a language and of each of its labels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from polar_pipeline.corpus.audit import Audit
from polar_pipeline.curation.agreement import Agreement
from polar_pipeline.curation.diversity import Diversity
from polar_pipeline.decision.decide import NONE
from polar_pipeline.decision.record import Decision, Estimate
from polar_pipeline.metrics.scores import Curve, Floats, Reliability
from polar_pipeline.task.languages import language


class DevTuned(NamedTuple):
    """A threshold tuned on dev, for comparison only: its gain on dev, and its gain on other posts."""

    threshold: float
    gain_on_dev: float  # macro-F1, over the decision's threshold
    gain_elsewhere: float  # on the decided posts outside dev


class Review(NamedTuple):
    """The posts marked for review, among those that were decided on."""

    share: float
    share_of_errors: float
    value_of_rest: float  # the task's metric


class Mistake(NamedTuple):
    """A wrong prediction far from the threshold. `text` is the post, at most 280 characters of it."""

    id: str
    text: str
    label: int
    probability: float


class LabelEvidence(NamedTuple):
    """What the report and the export show of one label of one language."""

    name: str  # what a reader is told that positive posts are
    decision: Decision
    positives: float  # share among the labelled posts
    predicted_positives: float | None  # share among the test posts, if there are any
    test: Estimate | None  # of the test posts that have a label
    curve: Curve  # of the out-of-fold probabilities, thinned
    diagram: Reliability  # of the same
    score_distance: float | None  # between probabilities out of fold and on test
    dev_tuned: DevTuned | None
    review: Review
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True)
class LanguageEvidence:
    """Everything that the report and the export show of one language."""

    language: str
    posts: dict[str, int]  # per split
    out_of_fold: Estimate  # nested, from the decisions
    resamples: Floats  # of the nested out-of-fold figure, for the mean over languages
    dev: Estimate | None  # of the dev posts, with the final thresholds
    dev_decided: bool  # whether they are among the posts that were decided on
    test: Estimate | None  # of the test posts that have labels
    labels: tuple[LabelEvidence, ...]  # one in a binary task
    audit: Audit
    types_unseen: tuple[str, ...]  # labels and auxiliary types without a positive train post
    funnel: tuple[dict[str, object], ...]  # of synthetic posts, by source and label; empty without any
    type_funnel: tuple[dict[str, object], ...] = ()  # of positive synthetic posts, by the type asked for
    agreements: tuple[Agreement, ...] = ()  # of plan, judge and backbone
    class_weights: tuple[float, ...] = ()
    doubtful: int = 0  # posts whose labels are doubtful
    doubts: tuple[dict[str, object], ...] = ()  # the most doubtful of them
    diversity: Mapping[str, Diversity] = field(default_factory=dict)  # of real and synthetic posts; empty without any
    gallery: tuple[dict[str, object], ...] = ()  # some of both, side by side

    @property
    def shift_response(self) -> str:
        """What the decisions do about a strong shift; a label that has nothing to learn from does nothing."""
        return next((one.decision.shift_response for one in self.labels if one.decision.shift_response != NONE), NONE)

    @property
    def first(self) -> LabelEvidence:
        """The only label, or the first."""
        return self.labels[0]

    @property
    def observed(self) -> Estimate | None:
        """Macro-F1 on posts that the decision was not chosen on: test if it has labels, else dev unless decided on."""
        return self.test or (None if self.dev_decided else self.dev)

    @property
    def gap(self) -> float | None:
        """Observed less out-of-fold macro-F1, or None without labels."""
        return self.observed.value - self.out_of_fold.value if self.observed else None

    @property
    def surprising(self) -> bool:
        """Whether the observed interval lies wholly below the out-of-fold one, which means that something is wrong."""
        return self.observed is not None and self.observed.high < self.out_of_fold.low

    @property
    def name(self) -> str:
        """The language's English name, or its code when it is not one of the official ones."""
        return english_name(self.language)


def english_name(code: str) -> str:
    """The English name of a language."""
    return language(code).name
