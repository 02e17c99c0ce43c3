"""The `Decision`: everything that is needed to turn a language's scores into labels, now or a year later."""

from polar_pipeline.storage.record import Record


class Estimate(Record):
    """A macro-F1 with its 95% bootstrap interval and the number of posts under it."""

    value: float
    low: float
    high: float
    posts: int


class Member(Record):
    """One backbone in the ensemble. Its calibrated logit is the mean over `seeds` of logit / temperature."""

    backbone: str
    seeds: tuple[int, ...]
    temperature: float
    weight: float


class Excluded(Record):
    """A model that does not take part, and why."""

    backbone: str
    seed: int
    reason: str


class Candidate(Record):
    """A strategy that was considered: its cross-fitted macro-F1, and by how much it beats the default's."""

    strategy: str
    macro_f1: float
    difference: float  # to the default strategy, on the same posts
    difference_low: float  # its paired 95% bootstrap interval
    difference_high: float


class Decision(Record):
    """How one language's scores become labels.

    probability = sigmoid(intercept + sum over members of weight * mean over seeds of logit / temperature);
    a post is positive when its probability is at least `threshold`.
    """

    language: str
    members: tuple[Member, ...]
    intercept: float
    excluded: tuple[Excluded, ...]
    strategy: str
    candidates: tuple[Candidate, ...]
    threshold_rule: str
    threshold: float
    threshold_spread: float  # standard deviation of the threshold over the bootstrap resamples
    out_of_fold: (
        Estimate  # nested: strategy, weights, temperatures and threshold of each fold come from the other folds
    )
    confusion: tuple[
        int, int, int, int
    ]  # of the nested predictions: true and false negatives and positives as tn, fp, fn, tp
    calibration_error: float  # expected calibration error of the out-of-fold probabilities
    positives: float  # share of positive labels among the rows that were decided on
    seed: int
    profile_fingerprint: str  # of the settings
    posts_fingerprint: str  # of the rows that were trained on and scored
    adapters: dict[str, str]  # backbone -> sha256 of the adapter or file that made the scores
