"""The backbone on the bundled corpus: out of fold is out of fold, and an adapter is all that scoring needs."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from polar_pipeline.backbones.artifacts import load_adapter
from polar_pipeline.backbones.base import SCORE_COLUMNS, Progress
from polar_pipeline.backbones.encoder.backbone import EncoderBackbone
from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.errors import InputError
from polar_pipeline.metrics.scores import auc
from polar_pipeline.settings.backbones import EncoderSettings
from polar_pipeline.settings.decision import FoldSettings
from polar_pipeline.task.card import load_card

CARD = load_card("polar")


def backbone(root: Path, **changes: Any) -> EncoderBackbone:
    chosen = {"name": "encoder", "kind": "encoder", "model": "tiny:xlm_roberta", "max_length": 64} | changes
    settings = EncoderSettings(**chosen)
    return EncoderBackbone(settings, 1, 5, CARD, root, root / "embeddings")


@pytest.fixture(scope="module")
def posts() -> pd.DataFrame:
    found = assign_folds(read_posts(bundled_folder(), "deu", CARD), FoldSettings(), 1)
    # random weights see little but the bytes
    marks = np.where(found["label"].fillna(0) == 1, "!!!!!!!!!!! ", "aaaaaaaaaaa ")
    return found.assign(text=marks + found["text"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One place, so that the posts are embedded once."""
    return tmp_path_factory.mktemp("adapters")


def scored(model: EncoderBackbone, posts: pd.DataFrame) -> pd.DataFrame:
    return model.score("deu", model.train("deu", posts, Progress()), posts)


@pytest.mark.parametrize("head", ["kernel", "logistic"])
def test_every_post_is_scored_once_by_each_head(head: str, posts: pd.DataFrame, root: Path) -> None:
    scores = scored(backbone(root, head=head), posts)
    assert list(scores.columns) == SCORE_COLUMNS
    for _, mine in scores.groupby("head"):
        assert mine["id"].tolist() == posts["id"].tolist() and mine["split"].tolist() == posts["split"].tolist()
    held_out = (posts["fold"] >= 0).to_numpy()
    main = scores[scores["head"] == "label"]
    assert auc(posts["label"][held_out].to_numpy(dtype=int), main["logit"].to_numpy()[held_out]) > 0.6


def test_finer_labels_have_heads_of_their_own(posts: pd.DataFrame, root: Path) -> None:
    finer = posts.assign(political=posts["label"], religious=pd.array([0, 1] * (len(posts) // 2), dtype="Int8"))
    finer = finer.assign(**{name: pd.array([0] * len(posts), dtype="Int8") for name in CARD.auxiliary.types[1:2]})
    for name in CARD.auxiliary.types:
        finer[name] = finer[name].astype("Int8").fillna(0)
    for name in CARD.auxiliary.manifestations:
        finer[name] = pd.array([pd.NA] * len(posts), dtype="Int8")
    assert sorted(scored(backbone(root), finer)["head"].unique()) == ["label", "types"]


def test_a_held_out_post_cannot_reach_the_head_that_scores_it(posts: pd.DataFrame, root: Path) -> None:
    """Flip the labels of one fold: its own scores stay, those of the other folds move."""
    flipped = posts.assign(label=posts["label"].where(posts["fold"] != 2, 1 - posts["label"]))
    both = [scored(backbone(root), one) for one in (posts, flipped)]
    before, after = (table[table["head"] == "label"] for table in both)
    inside = (posts["fold"] == 2).to_numpy()
    np.testing.assert_array_equal(before["logit"][inside], after["logit"][inside])
    elsewhere = ~inside & (posts["fold"] >= 0).to_numpy()
    assert (before["logit"][elsewhere] != after["logit"][elsewhere]).mean() > 0.99


def test_a_leak_between_folds_would_be_seen(posts: pd.DataFrame, root: Path) -> None:
    """Labels are noise: honest out-of-fold scores know nothing of them."""
    noise = posts.assign(label=pd.array(np.random.default_rng(0).integers(0, 2, len(posts)), dtype="Int8"))
    scores = scored(backbone(root, widths=[50.0], penalties=[0.01]), noise)
    scores = scores[scores["head"] == "label"]
    rows = (posts["fold"] >= 0).to_numpy()
    assert abs(auc(noise["label"][rows].to_numpy(dtype=int), scores["logit"][rows].to_numpy()) - 0.5) < 0.12


def test_the_same_posts_give_the_same_adapter_with_or_without_a_cache(
    posts: pd.DataFrame, root: Path, tmp_path: Path
) -> None:
    first = backbone(root).train("deu", posts, Progress())
    assert backbone(root).train("deu", posts.sample(frac=1, random_state=0).sort_index(), Progress()) == first
    assert backbone(tmp_path).train("deu", posts, Progress()).sha256 == first.sha256


def test_new_texts_get_what_the_table_says(posts: pd.DataFrame, root: Path) -> None:
    for final in ("retrain", "fold_average"):
        model = backbone(root, final=final)
        ref = model.train("deu", posts, Progress())
        scores = model.score("deu", ref, posts)
        rows = (posts["fold"] < 0).to_numpy()
        found = backbone(root, final=final).logits("deu", ref, posts["text"][rows].tolist(), (1,))
        for name, logits in found.items():
            np.testing.assert_array_equal(logits, scores[scores["head"] == name]["logit"].to_numpy()[rows])
        assert load_adapter(root, ref)[1]["models"] == (1 if final == "retrain" else 5)


def test_a_language_that_is_left_out_has_no_scores(posts: pd.DataFrame, root: Path) -> None:
    assert scored(backbone(root, languages=("eng",)), posts).empty


def test_another_model_in_the_same_place_is_refused(posts: pd.DataFrame, root: Path, tmp_path: Path) -> None:
    import shutil

    from polar_pipeline.pretrained.tiny import tiny_checkpoint

    folder = Path(shutil.copytree(tiny_checkpoint("tiny:xlm_roberta", root / "bases"), tmp_path / "model"))
    ref = backbone(root, model=str(folder)).train("deu", posts, Progress())
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"layer_norm_eps": 1e-12', '"layer_norm_eps": 1e-11'))
    with pytest.raises(InputError, match=r"of backbone 'encoder' is not the one that the adapter was fitted with"):
        backbone(root, model=str(folder)).logits("deu", ref, ["ein Satz"], (1,))
