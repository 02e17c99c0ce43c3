"""The `Decision`: everything that is needed to turn a language's scores into labels, now or a year later."""

from polar_pipeline.storage.record import Record
from polar_pipeline.task.card import MAIN_HEAD


def member_name(backbone: str, head: str) -> str:
    """`backbone` for its main head, `backbone.head` for others."""
    return backbone if head == MAIN_HEAD else f"{backbone}.{head}"


class Estimate(Record):
    """A figure by the task's metric with its 95% bootstrap interval and the number of posts under it."""

    value: float
    low: float
    high: float
    posts: int


class Member(Record):
    """One head of a backbone in the ensemble. Its calibrated logit is the mean over `seeds` of logit / temperature."""

    backbone: str
    head: str = MAIN_HEAD
    seeds: tuple[int, ...]
    temperature: float
    weight: float

    @property
    def name(self) -> str:
        """As in reports and strategies."""
        return member_name(self.backbone, self.head)


class Excluded(Record):
    """One seed of a member that does not take part, and why."""

    backbone: str
    head: str = MAIN_HEAD
    seed: int
    reason: str

    @property
    def name(self) -> str:
        """That of the member."""
        return member_name(self.backbone, self.head)


class Candidate(Record):
    """Another way to decide: its cross-fitted metric, and by how much it beats a reference on the same posts."""

    name: str
    value: float
    difference: float
    difference_low: float  # its paired 95% bootstrap interval
    difference_high: float


class Decision(Record):
    """How one language's scores become one label, 0 or 1.

    probability = sigmoid(intercept + sum over members of weight * mean over seeds of logit / temperature);
    a post is positive when its probability is at least `threshold`.
    """

    language: str
    target: str = MAIN_HEAD  # which label of the task
    members: tuple[Member, ...]
    intercept: float
    excluded: tuple[Excluded, ...]
    strategy: str
    candidates: tuple[Candidate, ...]  # strategies; the reference is the profile's
    without: tuple[Candidate, ...]  # the strategy without one member; the reference has all
    threshold_rule: str
    rules: tuple[Candidate, ...]  # threshold rules; the reference is the profile's
    threshold: float
    threshold_spread: float  # standard deviation of the threshold over the bootstrap resamples
    positive_share: float  # of the decided posts, at the threshold
    review_margin: float  # posts whose probability is closer than this to the threshold are for a person to look at
    shift_auc: float | None  # train-or-test, on text alone; None where decisions may not look at test posts
    shift_response: str  # none, pooled (members of one language were left out) or rate_matching (in `predict`)
    # nested: strategy, weights, temperatures and threshold of each fold come from the other folds
    out_of_fold: Estimate
    confusion: tuple[int, int, int, int]  # of the nested predictions: tn, fp, fn, tp
    nested: str  # those predictions: a bit for each decided post by split and id, in hexadecimal, zeros at the end
    calibration_error: float  # expected calibration error of the out-of-fold probabilities
    positives: float  # share of positive labels among the decided posts
    seed: int
    posts_fingerprint: str  # of the rows that were trained on and scored
    adapters: dict[str, str]  # backbone -> sha256 of the adapter or file that made the scores
    scores: dict[str, str]  # backbone -> sha256 of its scores; a decision is applied to no others


class Decisions(Record):
    """How one language's posts get their labels: a decision for each target of the task, and what they score together.

    With `class_weights`, each post gets the class with the highest weight times probability, instead of those classes
    whose probabilities reach their thresholds. With `whole`, a decision about posts with any label, posts that it calls
    negative get no label, and others at least the likeliest.
    """

    language: str
    metric: str
    targets: tuple[Decision, ...]  # in the order of the task card
    class_weights: tuple[float, ...] = ()
    review_margin: float = 0.0  # of a multiclass task: posts whose two likeliest classes are closer are for review
    whole: Decision | None = None
    out_of_fold: Estimate  # nested, as for each target

    @property
    def kind(self) -> str:
        """binary, multiclass or multilabel."""
        if self.class_weights:
            return "multiclass"
        return "binary" if self.first.target == MAIN_HEAD else "multilabel"

    @property
    def strategy(self) -> str:
        """That of the only target, or those of several, each once."""
        return ", ".join(dict.fromkeys(one.strategy for one in self.targets))

    @property
    def shift_response(self) -> str:
        """What is done about a strong shift; a target that has nothing to learn from does nothing."""
        return next((one.shift_response for one in self.targets if one.shift_response != "none"), "none")

    @property
    def first(self) -> Decision:
        """What all targets have in common can be read off any of them."""
        return self.targets[0]
