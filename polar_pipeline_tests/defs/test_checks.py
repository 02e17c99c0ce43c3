"""Each check of scores, decisions, predictions and the submission, passing once and failing once."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.decision.decide import CONSTANT
from polar_pipeline.decision.record import Decision, Decisions, Estimate, Member
from polar_pipeline.defs.assets.backbones import scores_checks
from polar_pipeline.defs.assets.decision import decision_checks, prediction_checks
from polar_pipeline.defs.project import Project
from polar_pipeline.report.submission import submission_problems, write_submission
from polar_pipeline.settings.backbones import BackboneSettings, ImportedSettings, LoraSettings
from polar_pipeline.storage.outputs import Check
from polar_pipeline.task.card import load_card

CARD = load_card("polar")


def failed(checks: Any) -> dict[str, str]:
    """The complaints of those that did not pass; warnings are marked."""
    found: list[Check] = list(checks)
    assert len({check.name for check in found}) == len(found)
    return {
        f"{check.name}{' (warning)' if check.warning else ''}": check.complaint for check in found if check.complaint
    }


def decision(
    value: float = 0.7,
    positives: float = 0.25,
    threshold: float = 0.5,
    weight: float = 1.0,
    temperature: float = 1.0,
    strategy: str = "simplex",
) -> Decisions:
    """Not validated, as a decision with NaN could not be."""
    estimate = Estimate.model_construct(value=value, posts=40)
    one = Decision.model_construct(
        target="label",
        strategy=strategy,
        intercept=0.0,
        threshold=threshold,
        positives=positives,
        members=(Member.model_construct(temperature=temperature, weight=weight),),
        out_of_fold=estimate,
    )
    return Decisions.model_construct(metric="macro-F1", targets=(one,), out_of_fold=estimate)


@pytest.mark.parametrize(
    ("changes", "complaints"),
    [
        ({}, {}),
        ({"threshold": np.nan}, {"finite": "1 numbers are not finite"}),
        ({"weight": np.inf, "temperature": np.nan}, {"finite": "2 numbers are not finite"}),
        # three of four posts are negative: "no" everywhere has F1 of 6/7 and 0
        ({"value": 3 / 7 + 1e-9}, {}),
        ({"value": 3 / 7}, {"above_floor (warning)": "macro-F1 0.429 is not above 0.429, which a constant answer has"}),
        (
            {"value": 0.47, "positives": 0.9},
            {"above_floor (warning)": "macro-F1 0.470 is not above 0.474, which a constant answer has"},
        ),
    ],
)
def test_decisions(changes: dict[str, float], complaints: dict[str, str]) -> None:
    assert failed(decision_checks(decision(**changes), CARD)) == complaints


def test_the_floor_is_the_macro_f1_of_a_constant_answer() -> None:
    from polar_pipeline.metrics.scores import macro_f1

    labels = np.repeat([0, 1], [30, 10])
    constant = max(macro_f1(labels, np.full(40, answer)) for answer in (0, 1))
    assert failed(decision_checks(decision(value=constant + 1e-9), CARD)) == {}
    assert "above_floor (warning)" in failed(decision_checks(decision(value=constant), CARD))


def test_a_label_with_nothing_to_learn_from_is_named() -> None:
    """Its figure is that of a constant answer, which is not said twice."""
    assert failed(decision_checks(decision(value=3 / 7, strategy=CONSTANT), CARD)) == {
        "learned (warning)": "every post gets the same answer for label: too few labelled posts differ"
    }


POSTS = pd.DataFrame(
    {
        "id": ["a", "b", "c", "d", "e"],
        "split": ["train", "train", "test", "test", "test"],
        "fold": [0, 1, -1, -1, -1],
        "label": pd.array([0, 1, None, None, None], dtype="Int8"),
        "source": "real",
        "text": "x",
    }
)
PREDICTIONS = POSTS[["id", "split", "fold"]].assign(probability=0.25, prediction=[0, 1, 0, 1, 0])
PREDICTIONS = PREDICTIONS.assign(target="label", margin=0.25, review=False)


@pytest.mark.parametrize(
    ("predictions", "complaints"),
    [
        (PREDICTIONS, {}),
        (PREDICTIONS[:-1], {"complete": "4 predictions do not match 5 posts"}),
        (PREDICTIONS.iloc[[1, 0, 2, 3, 4]], {"complete": "5 predictions do not match 5 posts"}),
        (PREDICTIONS.assign(split="test"), {"complete": "5 predictions do not match 5 posts"}),
        (
            PREDICTIONS.assign(probability=[0, 1, 0.5, np.nan, 1.1]),
            {"valid": "2 posts have no valid probability or label"},
        ),
        (PREDICTIONS.assign(prediction=[0, 1, 0, 2, 0]), {"valid": "1 posts have no valid probability or label"}),
        (
            PREDICTIONS.assign(prediction=1),
            {"positive_share (warning)": "100.0% of test are called positive, 25.0% of the labelled posts are"},
        ),
    ],
)
def test_predictions(predictions: pd.DataFrame, complaints: dict[str, str]) -> None:
    found = failed(prediction_checks(predictions, POSTS, decision(), CARD))
    if "valid" in complaints or "complete" in complaints:
        found.pop("positive_share (warning)", None)
    assert found == complaints


def test_the_share_of_positives_may_differ_by_a_quarter() -> None:
    test = PREDICTIONS.assign(prediction=[0, 0, 1, 1, 0])  # 2/3 of test
    assert failed(prediction_checks(test, POSTS, decision(positives=2 / 3 - 0.25), CARD)) == {}
    assert "positive_share (warning)" in failed(prediction_checks(test, POSTS, decision(positives=2 / 3 - 0.26), CARD))
    nothing = POSTS[POSTS["split"] == "train"]
    assert failed(prediction_checks(PREDICTIONS[:2], nothing, decision(), CARD)) == {}


def zipped(path: Path, **changes: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        folder = CARD.submission.folder
        for code, text in {
            "deu": "id,polarization\nc,0\nd,1\ne,0\n",
            "eng": "id,polarization\nc,0\nd,1\ne,0\n",
        }.items():
            if changes.get(code, text):
                archive.writestr(f"{folder}/{CARD.submission.file.format(language=code)}", changes.get(code, text))
    return path


def test_submissions(tmp_path: Path) -> None:
    predictions = {"deu": PREDICTIONS, "eng": PREDICTIONS}
    problems = lambda path: submission_problems(path, predictions, CARD)  # noqa: E731
    assert problems(write_submission(tmp_path / "own.zip", predictions, CARD)) == []
    assert problems(zipped(tmp_path / "same.zip")) == []
    (missing,) = problems(zipped(tmp_path / "missing.zip", eng=""))
    assert missing == "it holds 1 files and should hold 2"
    for what, text in {
        "flipped": "id,polarization\nc,1\nd,1\ne,0\n",
        "short": "id,polarization\nc,0\nd,1\n",
        "order": "id,polarization\nd,1\nc,0\ne,0\n",
        "id": "id,polarization\nc,0\nd,1\n007,0\n",
        "empty": "id,polarization\n",
    }.items():
        (found,) = problems(zipped(tmp_path / f"{what}.zip", deu=text))
        assert "pred_deu.csv does not hold the predictions of deu" in found, what
    numbers = PREDICTIONS.assign(id=["1", "2", "007", "1e3", "NA"])
    assert submission_problems(
        write_submission(tmp_path / "numbers.zip", {"deu": numbers}, CARD), {"deu": numbers}, CARD
    ) == []  # fmt: skip


class Silent:
    """A backbone that was probed with nothing."""

    def __init__(self, speaks: bool = True) -> None:
        self._speaks = speaks

    def speaks(self, language: str) -> bool:
        return self._speaks

    def probes(self, ref: AdapterRef, posts: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(columns=["backbone", "head", "seed", "language", "split", "fold", "id", "logit"])


LORA = LoraSettings(name="tiny", kind="lora", model="tiny:gemma3")
IMPORTED = ImportedSettings(name="tiny", kind="imported", path="x.csv")
MANY = 60


def many_posts() -> pd.DataFrame:
    split = np.repeat(["train", "test"], [MANY, 40])
    label = pd.array(np.arange(MANY + 40) % 2, dtype="Int8")
    label[split == "test"] = pd.NA
    fold = np.where(split == "train", np.arange(MANY + 40) // 2 % 2, -1)
    ids = [f"p{place}" for place in range(MANY + 40)]
    posts = pd.DataFrame({"id": ids, "split": split, "fold": fold, "label": label, "source": "real", "text": "x"})
    return posts.assign(keep=True, stage=None, reason=None, similar_to=None, similarity=None)


def scores_of(posts: pd.DataFrame, sign: float = 1.0) -> pd.DataFrame:
    """A model that mostly knows the answer, which is that of the place."""
    generator = np.random.default_rng(0)
    logit = sign * (2.0 * (np.arange(len(posts)) % 2) - 1 + generator.normal(scale=0.5, size=len(posts)))
    return posts[["split", "fold", "id"]].assign(backbone="tiny", head="label", seed=0, language="deu", logit=logit)


def check_scores(project: Project, scores: pd.DataFrame, settings: BackboneSettings = LORA, speaks: bool = True) -> Any:
    ref = AdapterRef.model_construct(path="p")
    backbone: Any = Silent(speaks)
    return failed(scores_checks(project, backbone, settings, "deu", scores, many_posts(), ref))


def test_scores(project: Project) -> None:
    whole = scores_of(many_posts())
    two = pd.concat([whole, whole.assign(seed=1)])
    assert check_scores(project, whole) == {} == check_scores(project, two)
    assert check_scores(project, whole[1:]) == {"complete": "99 scores of 1 models do not match 100 posts"}
    assert "complete" in check_scores(project, pd.concat([whole, whole[:1]]))
    assert "complete" in check_scores(project, pd.concat([whole, whole.assign(seed=1)[1:]]))
    assert check_scores(project, whole[:0], speaks=False) == {}
    assert "complete" in check_scores(project, whole, speaks=False)
    assert check_scores(project, whole[:0]) == {"complete": "0 scores of 0 models do not match 100 posts"}


def test_scores_of_several_heads(project: Project) -> None:
    """Each head is checked on its own: one that is whole or varies makes up for no other."""
    whole = scores_of(many_posts())
    types = whole.assign(head="types")
    assert check_scores(project, pd.concat([whole, types])) == {}
    assert check_scores(project, pd.concat([whole, types[1:]])) == {
        "complete": "199 scores of 2 models do not match 100 posts"
    }
    found = check_scores(project, pd.concat([whole, types.assign(logit=0.5)]))
    assert found["not_constant (warning)"] == "standard deviation of the logits of head types is 0"
    assert found["sound"] == "tiny.types seed 0: its out-of-fold logits are constant"


def test_scores_that_are_not_finite(project: Project) -> None:
    scores = scores_of(many_posts())[1:].assign(logit=lambda table: table["logit"].where(table["id"] != "p5", np.nan))
    assert check_scores(project, scores)["finite"] == "1 scores are not finite"


def test_scores_of_a_broken_model(project: Project) -> None:
    """An error for what can be trained again, and a warning for what came from elsewhere."""
    inverted = scores_of(many_posts(), sign=-1.0)
    assert "inverted" in check_scores(project, inverted)["sound"]
    assert list(check_scores(project, inverted, IMPORTED)) == ["sound (warning)"]
    constant = inverted.assign(logit=0.5)
    found = check_scores(project, constant)
    assert found["not_constant (warning)"] == "standard deviation of the logits of head label is 0"
    assert found["sound"] == "tiny seed 0: its out-of-fold logits are constant"
