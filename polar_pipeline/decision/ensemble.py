"""Members' scores into one decision per language, chosen on out-of-fold scores alone.

Dev rows whose scores are not out of fold move a decision only where there are no folds at all; test labels never do.
What does not belong here: applying a decision, which is `predictions`.
"""

import numpy as np
import pandas as pd

from polar_pipeline.corpus.folds import deal, scored_posts
from polar_pipeline.corpus.text import duplicate_groups
from polar_pipeline.decision.contributions import each_rule, without_each
from polar_pipeline.decision.members import MemberScores, gather, scores_sha256
from polar_pipeline.decision.record import Decision, Estimate, Member
from polar_pipeline.decision.screening import screen
from polar_pipeline.decision.selection import fit, nested_predictions
from polar_pipeline.decision.shift import NONE, POOLED, pooled_members, shift_response
from polar_pipeline.decision.strategies import Combination
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.intervals import confusion, macro_f1_interval
from polar_pipeline.metrics.scores import Floats, Ints, expected_calibration_error
from polar_pipeline.settings.profile import Profile
from polar_pipeline.storage.fingerprint import fingerprint

_DEV_FOLDS = 5
_RESAMPLES = 2000  # of the estimate's interval: they fix a 95% limit to about 0.001 (Efron & Tibshirani 1993, ch. 13)


def decide(
    language: str,
    posts: pd.DataFrame,
    scores: pd.DataFrame,
    profile: Profile,
    adapters: dict[str, str],
    posts_fingerprint: str,
    shift_auc: float = 0.5,
) -> Decision:
    """Choose strategy, weights, temperatures and threshold of one language on its out-of-fold scores.

    `posts` has id, text, split, label, fold; `scores` has backbone, seed, split, fold, id, logit of `adapters`, some of which may
    have none for this language. Raises InputError when a member lacks a score or has one that is not finite.
    """
    settings, seed = profile.decision, profile.seed
    # sums of floats depend on their order
    posts = scored_posts(posts).sort_values(["split", "id"]).reset_index(drop=True)
    members, excluded = screen(posts, gather(posts, scores, list(adapters), language), settings.transductive)
    response = shift_response(shift_auc, settings)
    if response == POOLED:
        pooled = pooled_members(members, profile.pooled_backbones)
        members, response = (pooled, POOLED) if len(pooled) < len(members) else (members, NONE)
    decided, folds = decided_rows(posts, seed)
    labels = posts["label"][decided].to_numpy(dtype=int)
    inside = [member.rows(decided) for member in members]
    fitted = fit(labels, folds, inside, settings, seed)
    probabilities = fitted.probabilities(inside)
    predictions = nested_predictions(labels, folds, inside, settings, seed)
    interval = macro_f1_interval(labels, predictions, _RESAMPLES, language_seed(seed, language))
    return Decision(
        language=language,
        members=_members(members, fitted.combination),
        intercept=fitted.combination.intercept,
        excluded=excluded,
        strategy=fitted.strategy,
        candidates=fitted.candidates,
        without=without_each(fitted.strategy, labels, folds, inside, settings, seed),
        threshold_rule=settings.threshold,
        rules=each_rule(fitted.strategy, labels, folds, inside, settings, seed),
        threshold=fitted.threshold.value,
        threshold_spread=fitted.threshold.spread,
        positive_share=float(np.mean(probabilities >= fitted.threshold.value)),
        review_margin=_review_margin(probabilities, fitted.threshold.value, settings.review_share),
        shift_auc=shift_auc if settings.transductive else None,
        shift_response=response,
        out_of_fold=Estimate(value=interval.value, low=interval.low, high=interval.high, posts=len(labels)),
        confusion=confusion(labels, predictions),
        nested=np.packbits(predictions.astype(np.uint8)).tobytes().hex(),
        calibration_error=expected_calibration_error(labels, probabilities),
        positives=float(labels.mean()),
        seed=seed,
        posts_fingerprint=posts_fingerprint,
        adapters={name: adapters[name] for name in sorted(adapters)},
        scores=scores_sha256(scores),
    )


def decided_rows(posts: pd.DataFrame, seed: int) -> "tuple[np.typing.NDArray[np.bool_], Ints]":
    """Which posts a decision is made on, a mask (posts,), and the fold of each of those.

    They are the labelled posts in folds; where there are none at all, the labelled dev posts, dealt into five folds here.
    """
    labelled = posts["label"].notna().to_numpy(dtype=bool)
    inside = labelled & (posts["fold"] >= 0).to_numpy(dtype=bool)
    if inside.any():
        return inside, posts["fold"][inside].to_numpy(dtype=int)
    dev = labelled & (posts["split"] == "dev").to_numpy(dtype=bool)
    rows = posts[dev].sort_values("id", kind="stable")
    dealt = deal(duplicate_groups(rows), rows["label"].to_numpy(dtype=np.int64), _DEV_FOLDS, seed)
    return dev, pd.Series(dealt, index=rows.index)[posts.index[dev]].to_numpy(dtype=int)


def nested_table(decision: Decision, posts: pd.DataFrame) -> pd.DataFrame:
    """The decided posts with label and nested prediction (0/1), indexed by split and id. `posts` are those decided on.

    Raises InputError when they are more or fewer than were decided on.
    """
    decided, _ = decided_rows(posts, decision.seed)
    table = posts.loc[decided, ["split", "id", "label"]].sort_values(["split", "id"])
    if len(table) != decision.out_of_fold.posts:
        raise InputError(
            f"{decision.language} was decided on {decision.out_of_fold.posts} posts and raw_posts holds {len(table)} now: "
            f"materialize thresholds for {decision.language} again."
        )
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(decision.nested), dtype=np.uint8))[: len(table)]
    return table.assign(prediction=bits.astype(int)).set_index(["split", "id"])


def language_seed(seed: int, language: str) -> int:
    """A seed of this language's own: with one seed for all, the resamples of languages would rise and fall together."""
    return int(fingerprint([seed, language])[:8], 16)


def _members(members: list[MemberScores], combination: Combination) -> tuple[Member, ...]:
    return tuple(
        Member(backbone=member.backbone, seeds=member.seeds, temperature=float(temperature), weight=float(weight))
        for member, temperature, weight in zip(members, combination.temperatures, combination.weights, strict=True)
    )


def _review_margin(probabilities: Floats, threshold: float, share: float) -> float:
    """Closer to the threshold than this are `share` of the posts that were decided on."""
    return float(np.quantile(np.abs(probabilities - threshold), share)) if share else 0.0
