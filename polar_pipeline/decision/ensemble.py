"""Members' scores into one decision per language, chosen on out-of-fold scores alone, and applied to all of them.

First version of the rule: temperature-scaled logits, equal weights, bagged threshold. Dev rows whose scores are not
out of fold, and everything of test, never move a decision.
"""

import numpy as np
import pandas as pd

from polar_pipeline.decision.calibration import fit_temperature, sigmoid
from polar_pipeline.decision.record import Decision, Estimate, Member
from polar_pipeline.decision.thresholds import Threshold, bagged_threshold
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.intervals import confusion, macro_f1_interval
from polar_pipeline.metrics.scores import Floats, Ints, expected_calibration_error
from polar_pipeline.storage.fingerprint import fingerprint
from polar_pipeline.task.profile import DecisionSettings, Profile

STRATEGY = "equal-weights + bagged-out-of-fold-threshold"


def decide(
    language: str,
    posts: pd.DataFrame,
    scores: pd.DataFrame,
    profile: Profile,
    adapters: dict[str, str],
    posts_fingerprint: str,
) -> Decision:
    """Choose temperatures and threshold of one language on its out-of-fold scores.

    `posts` has id, split, label, fold; `scores` has backbone, seed, split, fold, id, logit for each of `adapters`.
    Raises InputError when a member lacks an out-of-fold score or has one that is not finite.
    """
    rows = posts[(posts["fold"] >= 0) & posts["label"].notna()]
    labels, folds = rows["label"].to_numpy(dtype=int), rows["fold"].to_numpy(dtype=int)
    backbones = sorted(adapters)
    logits = member_logits(rows, scores, backbones, language)
    rule = profile.decision
    temperatures, threshold = _fit(labels, logits, rule, profile.seed)
    probabilities = _combine(logits, temperatures)
    predictions = _nested_predictions(labels, folds, logits, rule, profile.seed)
    interval = macro_f1_interval(labels, predictions, profile.report.resamples, language_seed(profile.seed, language))
    return Decision(
        language=language,
        members=tuple(
            Member(backbone=name, temperature=temperature, weight=1.0 / len(backbones))
            for name, temperature in zip(backbones, temperatures, strict=True)
        ),
        strategy=STRATEGY,
        threshold=threshold.value,
        threshold_spread=threshold.spread,
        out_of_fold=Estimate(value=interval.value, low=interval.low, high=interval.high, posts=len(labels)),
        confusion=confusion(labels, predictions),
        calibration_error=expected_calibration_error(labels, probabilities),
        positives=float(labels.mean()),
        seed=profile.seed,
        profile_fingerprint=profile.fingerprint,
        posts_fingerprint=posts_fingerprint,
        adapters={name: adapters[name] for name in backbones},
    )


def language_seed(seed: int, language: str) -> int:
    """A seed of this language's own: with one seed for all, the resamples of languages would rise and fall together."""
    return int(fingerprint([seed, language])[:8], 16)


def predict(decision: Decision, posts: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Apply a decision: id, split, fold, probability, prediction for every row of `posts`, in its order.

    Rows with fold >= 0 carry out-of-fold probabilities. Raises InputError when a member's score is missing.
    """
    logits = member_logits(posts, scores, [member.backbone for member in decision.members], decision.language)
    weights = np.array([member.weight for member in decision.members])
    probabilities = _combine(logits, [member.temperature for member in decision.members], weights)
    frame = posts[["id", "split", "fold"]].reset_index(drop=True)
    return frame.assign(probability=probabilities, prediction=(probabilities >= decision.threshold).astype("int8"))


def member_logits(rows: pd.DataFrame, scores: pd.DataFrame, backbones: list[str], language: str) -> Floats:
    """Logits of shape (rows, backbones), seeds averaged, aligned with `rows` by split and id."""
    columns = []
    for backbone in backbones:
        mine = scores[scores["backbone"] == backbone]
        mean = mine.groupby(["split", "id"], sort=False)["logit"].mean()
        aligned = mean.reindex(pd.MultiIndex.from_frame(rows[["split", "id"]])).to_numpy(dtype=float)
        bad = ~np.isfinite(aligned)
        if bad.any():
            raise InputError(
                f"scores of backbone {backbone!r} for {language} lack a finite logit for {int(bad.sum())} posts, first "
                f"{rows['id'].to_numpy()[bad][0]!r}: materialize {backbone}_dev_probabilities for {language} again."
            )
        columns.append(aligned)
    return np.stack(columns, axis=1)


def _fit(labels: Ints, logits: Floats, rule: DecisionSettings, seed: int) -> tuple[list[float], Threshold]:
    temperatures = [fit_temperature(labels, column) for column in logits.T]
    return temperatures, bagged_threshold(labels, _combine(logits, temperatures), rule.resamples, seed)


def _combine(logits: Floats, temperatures: list[float], weights: Floats | None = None) -> Floats:
    return sigmoid(np.average(logits / np.array(temperatures), axis=1, weights=weights))


def _nested_predictions(labels: Ints, folds: Ints, logits: Floats, rule: DecisionSettings, seed: int) -> Ints:
    """Each fold is decided by the temperatures and the threshold of the other folds, so no row judges itself."""
    predictions = np.zeros(len(labels), dtype=int)
    for fold in np.unique(folds):
        held_out = folds == fold
        temperatures, threshold = _fit(labels[~held_out], logits[~held_out], rule, seed)
        predictions[held_out] = _combine(logits[held_out], temperatures) >= threshold.value
    return predictions
