"""Made-up evidence for the tests of the report."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from polar_pipeline.decision.predictions import predict_targets
from polar_pipeline.decision.record import Decisions
from polar_pipeline.decision.targets import decide_targets
from polar_pipeline.report.evidence import LanguageResults, language_evidence
from polar_pipeline.report.records import LanguageEvidence
from polar_pipeline.settings.profile import Profile
from polar_pipeline.task.card import load_card

CARD = load_card("polar")
PROFILE = Profile(name="test", description="<b>made</b>", seed=3)


@dataclass(frozen=True)
class Findings:
    """What the report reads of a corpus audit."""

    shift_auc: float = 0.7
    cross_split_dev: int = 1
    cross_split_test: int = 2
    conflicting_groups: int = 3
    types_train: dict[str, int] = field(default_factory=lambda: {"political": 5, "gender": 0})


def tables(code: str, seed: int = 0, train: int = 200) -> tuple[pd.DataFrame, pd.DataFrame, Decisions]:
    """Posts, predictions and decision of one language with scores that are right more often than not."""
    generator = np.random.default_rng(seed)
    split = np.repeat(["train", "dev", "test"], [train, 20, 60])
    truth = generator.integers(0, 2, len(split))
    label = pd.array(truth, dtype="Int8")
    label[split == "test"] = pd.NA
    fold = np.where(split != "train", -1, np.arange(len(split)) % 5)
    text = [f"<i>post</i> {i}" for i in range(len(split))]
    posts = pd.DataFrame(
        {"id": [f"{code}_{i}" for i in range(len(split))], "split": split, "fold": fold, "label": label, "text": text}
    )
    logit = 2.0 * truth - 1 + generator.normal(size=len(split))
    scores = posts[["id", "split", "fold"]].assign(backbone="linear", head="label", seed=0, language=code, logit=logit)
    decisions = decide_targets(code, posts, scores, PROFILE, CARD, {"linear": "0" * 64}, "f")
    return posts, predict_targets(decisions, posts, scores, CARD), decisions


def evidence(code: str, seed: int = 0, test_labels: "pd.Series[int] | None" = None) -> LanguageEvidence:
    return measured(*tables(code, seed), test_labels)


def measured(
    posts: pd.DataFrame,
    predictions: pd.DataFrame,
    decisions: Decisions,
    test_labels: "pd.Series[int] | None" = None,
    curated: pd.DataFrame | None = None,
) -> LanguageEvidence:
    results = LanguageResults(posts, predictions, decisions, Findings(), CARD, curated)
    known = None if test_labels is None else test_labels.to_frame("label")
    return language_evidence(results, known, PROFILE.report, PROFILE.seed)
