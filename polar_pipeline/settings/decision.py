"""Settings of the folds, of the decision that turns scores into labels, and of the report that judges it."""

from typing import Literal

from pydantic import Field, field_validator

from polar_pipeline.settings.yaml_files import Settings

STRATEGIES = ("equal", "simplex", "ridge")  # of combining several backbones; one alone goes by its name


class FoldSettings(Settings):
    """How rows are held out."""

    count: int = Field(default=5, ge=0, le=20)
    """Folds of the labelled posts. Five is the usual compromise between training rows per fold (80%) and cost
    (Kohavi 1995, section 5). 0: nothing is scored out of fold, and decisions are made on dev alone; only imported
    scores and adapters that are retrained can do without folds.
    """
    fit_on: Literal["train", "train+dev"] = "train+dev"
    """Which posts are dealt into folds and trained on. train+dev: dev rows are labelled rows, so there is 5% more
    to learn from, and their scores are out of fold too. train: dev stays outside, which early stopping and imported
    scores of models that did not hold dev out need (docs/folds.md).
    """

    @field_validator("count")
    @classmethod
    def _not_one(cls, value: int) -> int:
        if value == 1:
            raise ValueError("one fold leaves nothing to train on, use 0 or at least 2")
        return value


class DecisionSettings(Settings):
    """How the scores of the backbones become one decision per language."""

    strategy: str = Field(default="simplex", pattern=r"^[a-z][a-z0-9_]*$")
    """How the calibrated scores of several backbones become one. equal: their plain average. simplex: weights above
    0 that sum to 1 and minimise the log loss; best out of fold over all languages. ridge: logistic regression on
    the scores with a squared penalty, weights of any sign and an intercept; scores the same within the error. The
    name of a backbone: that one alone (docs/decisions.md). A single backbone needs none of it.
    """
    departures: bool = True
    """Whether a language may leave the strategy for another, and only where its own cross-fitted evidence is beyond
    the error of as many comparisons as there are strategies; this costs nothing on average.
    """
    threshold: Literal["half", "argmax", "bagged", "plug_in"] = "bagged"
    """The rule for the probability from which a post is positive. half: 0.5. argmax: the threshold with the highest
    macro-F1 on the out-of-fold scores, which jumps when a few posts change. bagged: the mean of argmax over
    bootstrap resamples; the best of the four out of fold. plug_in: the threshold with the highest expected macro-F1
    if the probabilities are taken at their word; it uses no label (docs/threshold.md).
    """
    consistent: bool = False
    """Of a task with several labels: whether a post gets labels exactly if it is decided to have any, by a decision of
    its own. A post of POLAR has a type exactly if it is polarized.
    """
    resamples: int = Field(default=200, ge=1, le=10_000)
    """Bootstrap resamples of threshold: bagged. With 200 its own error is 1/14 of one resample's spread."""
    review_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of posts, those closest to the threshold, that are marked for a person to look at. On real scores a
    tenth of the posts holds a quarter of the errors.
    """
    transductive: bool = True
    """Whether decisions may look at unlabelled test posts: to screen final models, and to answer a strong shift."""
    shift_response: Literal["none", "rate_matching", "pooled"] = "rate_matching"
    """What a decision does about test posts that differ strongly from the labelled ones. none: nothing.
    rate_matching: the threshold on test moves until as large a share is positive as out of fold. pooled: only the
    backbones that were trained on all languages take part, if there are any (docs/decisions.md). Both need
    transductive: true.
    """
    shift_response_auc: float = Field(default=0.8, gt=0.5, le=1.0)
    """AUC of a classifier that tells train from test posts from which the shift counts as strong. Italian has 0.98,
    the next language 0.65.
    """


class ReportSettings(Settings):
    """How the evidence is measured."""

    resamples: int = Field(default=2000, ge=100, le=100_000)
    """Bootstrap resamples of an interval. 2,000 fix a 95% limit to about 0.001 (Efron & Tibshirani 1993, chapter
    13).
    """
    shift_auc_warning: float = Field(default=0.6, gt=0.5, le=1.0)
    """AUC of a classifier that tells train from test posts from which a language is flagged. Scores moved in the
    four languages that have 0.60 and above.
    """
    imbalance_warning: float = Field(default=0.8, ge=0.5, le=1.0)
    """Share of the larger class from which a language is flagged as imbalanced."""
    error_examples: int = Field(default=4, ge=0, le=50)
    """Errors with the highest confidence that the report shows per language, with their texts; 0 shows none."""
