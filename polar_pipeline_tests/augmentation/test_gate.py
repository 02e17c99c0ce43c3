"""Shares are compared on the same real posts; only what helps beyond the error, and the profile allows, is taken."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from polar_pipeline.augmentation import gate as augmentation
from polar_pipeline.augmentation.gate import (
    SHARES,
    Evaluation,
    ShareResult,
    cap_share,
    compare,
    evaluate_shares,
    helpful_share,
)
from polar_pipeline.backbones.linear.backbone import LinearBackbone
from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import REAL, read_posts
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.curation.curate import VERDICT
from polar_pipeline.metrics.intervals import Interval
from polar_pipeline.metrics.scores import macro_f1
from polar_pipeline.settings.backbones import LinearSettings
from polar_pipeline.settings.curation import CurationSettings
from polar_pipeline.settings.profile import Profile, load_profile
from polar_pipeline.synthesis.posts import posts_table
from polar_pipeline.task.card import load_card

CARD = load_card("polar")
PROFILE = load_profile("demo")


def evaluation(table: pd.DataFrame, root: Path) -> Evaluation:
    backbone = LinearBackbone(LinearSettings(), seed=1, folds=5, card=CARD, root=root)
    return evaluate_shares(table, "deu", PROFILE, backbone)


def shares_of(table: pd.DataFrame, root: Path) -> list[ShareResult]:
    return evaluation(table, root).results


def curated(good: bool) -> pd.DataFrame:
    """A language with few posts, and further training posts as synthetic ones: with their labels, or with noise."""
    posts = read_posts(bundled_folder(), "deu", CARD)
    extra = posts[posts["split"] == "train"].iloc[60:]
    few = assign_folds(
        pd.concat([posts[posts["split"] == "train"].iloc[:60], posts[posts["split"] != "train"]]), PROFILE.folds, 0
    )
    labels = (
        extra["label"] if good else pd.Series(np.random.default_rng(0).integers(0, 2, len(extra)), index=extra.index)
    )
    rows = [
        {"id": f"s{place}", "text": text, "label": int(label), "split": "train", "fold": place % 5, "source": "direct",
         "parent_id": "", "request": ""}
        for place, (text, label) in enumerate(zip(extra["text"], labels, strict=True))
    ]  # fmt: skip
    table = pd.concat([few, posts_table(rows, CARD)], ignore_index=True)
    return table.assign(keep=True, **dict.fromkeys(VERDICT[1:4], ""), similarity=0.0, judge_probability=np.nan)


def test_good_posts_help_and_noise_does_not(tmp_path: Path) -> None:
    good, noise = (shares_of(curated(kind), tmp_path) for kind in (True, False))
    assert [result.asked for result in good] == [0.0, 0.1, 0.2, 0.3, 0.5]
    assert np.allclose([result.share for result in good], [0.0, 0.1, 0.2, 0.3, 0.5], atol=0.01)
    assert [result.posts for result in good] == [0, 11, 25, 42, 100]
    assert tuple(good[0].difference) == (0, 0, 0) and good[0].macro_f1 == noise[0].macro_f1
    assert good[-1].difference.value > noise[-1].difference.value
    assert helpful_share(noise) == 0


def test_labels_of_synthetic_posts_are_given_by_models_of_real_posts_of_other_folds(tmp_path: Path) -> None:
    table = curated(True)
    real = table[(table["source"] == REAL) & (table["fold"] >= 0)]
    copies = real.assign(id="copy_" + real["id"], source="direct", label=1 - real["label"])
    dropped = copies.head(10).assign(id="dropped_" + real["id"].head(10), keep=False, stage="judge")
    with_copies = pd.concat([table[table["source"] == REAL], copies, dropped], ignore_index=True)
    with_copies["judge_probability"] = with_copies["judge_probability"].mask(with_copies["stage"] == "judge", 0.1)
    found = evaluation(with_copies, tmp_path)
    by_id = dict(zip(with_copies["id"], found.labels, strict=True))
    # a copy of a post in its own fold would be known by heart to a model that was trained on it, with the other label
    assert all(by_id[f"copy_{name}"] == by_id[name] for name in real["id"])
    assert all(by_id[f"dropped_{name}"] == by_id[name] for name in real["id"].head(10))
    assert found.labels[with_copies["fold"] < 0].isna().all()
    alone = evaluation(table[table["source"] == REAL], tmp_path)
    assert found.results[0] == alone.results[0]  # nothing is learned from posts that are only scored
    assert [by_id[name] for name in real["id"]] == alone.labels[real.index].tolist()
    assert macro_f1(real["label"].to_numpy(dtype=int), alone.labels[real.index].to_numpy(dtype=int)) == (
        alone.results[0].macro_f1
    )


def test_what_fell_before_the_judge_gets_no_label(tmp_path: Path) -> None:
    table = curated(True)
    table["keep"] = table["keep"].mask(table["source"] != REAL, False)
    assert evaluation(table, tmp_path).labels[table["source"] != REAL].isna().all()


def test_only_what_helps_beyond_the_error_is_taken() -> None:
    def result(share: float, value: float, low: float) -> ShareResult:
        return ShareResult(share, share, 1, 0.7 + value, Interval(value, low, value + 0.1))

    assert helpful_share([result(0, 0, 0), result(0.1, 0.02, -0.01)]) == 0
    assert helpful_share([result(0, 0, 0), result(0.1, 0.02, 0.01), result(0.3, 0.03, 0.001)]) == 0.3
    assert helpful_share([]) == 0


def test_without_synthetic_posts_there_is_one_result(tmp_path: Path) -> None:
    table = curated(True)
    found = shares_of(table[table["source"] == REAL], tmp_path)
    assert [(item.share, item.posts) for item in found] == [(0.0, 0)]


def test_where_posts_run_out_the_share_is_the_one_reached_and_no_set_comes_twice(tmp_path: Path) -> None:
    table = curated(True)
    few = table[(table["source"] == REAL) | table["id"].isin([f"s{place}" for place in range(13)])]
    few = few.reset_index(drop=True)
    found = shares_of(few, tmp_path)
    trained = int((few["fold"] >= 0).sum())
    assert [(item.asked, item.posts) for item in found] == [(0.0, 0), (0.1, 11), (0.2, 13)]
    assert found[-1].share == 13 / trained
    for result in found:
        assert int((cap_share(few, result.share)[lambda kept: kept["keep"]]["source"] != REAL).sum()) == result.posts


def test_useless_posts_seldom_help_any_share() -> None:
    """Decisions that differ by chance: in a hundred languages the best of four shares is seldom beyond the error."""
    generator, taken = np.random.default_rng(0), 0
    for _ in range(100):
        labels = generator.integers(0, 2, 400)
        decided = [np.where(generator.random(400) < 0.25, 1 - labels, labels) for _ in SHARES]
        found = [
            ShareResult(share, share, 1, macro_f1(labels, one), compare(labels, one, decided[0], 0))
            for share, one in zip(SHARES, decided, strict=True)
        ]
        taken += helpful_share(found) > 0
    assert taken <= 6


@pytest.mark.parametrize(("most", "chosen"), [(0.5, 0.5), (0.3, 0.2), (0.1, 0.0)])
def test_a_share_above_the_profiles_is_measured_and_not_chosen(
    monkeypatch: pytest.MonkeyPatch, most: float, chosen: float
) -> None:
    gains = {0.0: 0.0, 0.1: -0.01, 0.2: 0.01, 0.3: 0.005, 0.5: 0.02}
    results = [
        ShareResult(share, share, 10, 0.8 + gain, Interval(gain, gain - 0.001, gain + 0.001))
        for share, gain in gains.items()
    ]
    found = Evaluation(results, pd.Series(dtype="Int8"))
    monkeypatch.setattr(augmentation, "evaluate_shares", lambda *_: found)
    profile = Profile(name="x", description="", curation=CurationSettings(share=most))
    decided = augmentation.gate(pd.DataFrame(), "deu", load_card("polar"), profile)
    assert decided.share == chosen and decided.results == results
