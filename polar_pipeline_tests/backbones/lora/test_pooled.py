"""One adapter for all languages: each takes its own share of the logits, and refuses one that saw other posts."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.dataset import dataset_fingerprint
from polar_pipeline.backbones.lora.loading import ModelCache
from polar_pipeline.backbones.lora.pooled import PooledBackbone, tag
from polar_pipeline.corpus.folds import assign_folds
from polar_pipeline.corpus.posts import read_posts
from polar_pipeline.corpus.release import bundled_folder
from polar_pipeline.errors import InputError
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline.settings.decision import FoldSettings
from polar_pipeline.task.card import load_card
from polar_pipeline.task.languages import LANGUAGES

CARD = load_card("polar")
SETTINGS = {"model": "tiny:gemma3", "device": "cpu", "epochs": 1, "max_length": 24, "token_budget": 1024, "rank": 2}


def backbone(root: Path, **changes: object) -> PooledBackbone:
    settings = LoraSettings(name="pooled", kind="lora", **({"scope": "pooled"} | SETTINGS | changes))
    return PooledBackbone(settings, 1, 2, CARD, root, ModelCache())


@pytest.fixture(scope="module")
def posts() -> dict[str, pd.DataFrame]:
    def some(code: str) -> pd.DataFrame:
        table = read_posts(bundled_folder(), code, CARD)
        few = table.groupby("split", sort=False).head(24).reset_index(drop=True)
        return assign_folds(few, FoldSettings(count=2), 1)

    return {code: some(code) for code in ("eng", "deu")}


@pytest.fixture(scope="module")
def trained(posts: dict[str, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> tuple[PooledBackbone, Path]:
    root = tmp_path_factory.mktemp("pooled")
    model = backbone(root)
    model.train_all(posts, Progress())
    return model, root


def test_every_language_gets_its_own_logits(
    trained: tuple[PooledBackbone, Path], posts: dict[str, pd.DataFrame]
) -> None:
    model, _ = trained
    pooled = model.train_all(posts, Progress())  # trained before, so it is found again
    for code, table in posts.items():
        ref = model.share(code, table, pooled, Progress())
        assert (ref.language, ref.posts_fingerprint) == (code, dataset_fingerprint(table, CARD))
        scores = model.score(code, ref, table)
        assert scores["id"].tolist() == table["id"].tolist()
        assert scores["logit"].std() > 0
        outside = (table["fold"] < 0).to_numpy()
        again = model.logits(code, ref, table.loc[outside, "text"].tolist(), (0,))["label"]
        np.testing.assert_allclose(again, scores["logit"].to_numpy()[outside], atol=1e-6)


def test_a_fold_is_held_out_in_all_languages_at_once(posts: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    flipped = {
        code: table.assign(label=table["label"].where(table["fold"] != 1, 1 - table["label"]))
        for code, table in posts.items()
    }
    found = []
    for place, tables in enumerate((posts, flipped)):
        model = backbone(tmp_path / str(place))
        pooled = model.train_all(tables, Progress())
        ref = model.share("deu", tables["deu"], pooled, Progress())
        found.append(model.score("deu", ref, tables["deu"])["logit"].to_numpy())
    held_out = (posts["deu"]["fold"] == 1).to_numpy()
    np.testing.assert_array_equal(found[0][held_out], found[1][held_out])
    assert (found[0][~held_out] != found[1][~held_out]).all()


def test_other_posts_or_settings_need_another_pooled_adapter(
    trained: tuple[PooledBackbone, Path], posts: dict[str, pd.DataFrame]
) -> None:
    model, root = trained
    pooled = model.train_all(posts, Progress())
    changed = posts["deu"].assign(text=posts["deu"]["text"] + "!")
    with pytest.raises(
        InputError, match="pooled_pooled_adapter was trained with other settings or on other posts of deu"
    ):
        model.share("deu", changed, pooled, Progress())
    with pytest.raises(InputError, match="other settings"):
        backbone(root, rank=4).share("deu", posts["deu"], pooled, Progress())
    with pytest.raises(InputError, match="trained on several languages together"):
        model.train("deu", posts["deu"], Progress())


def test_a_language_that_is_left_out_has_no_scores_and_the_others_have(
    posts: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    model = backbone(tmp_path, languages=("eng",))
    pooled = model.train_all(posts, Progress())
    ref = model.share("deu", posts["deu"], pooled, Progress())
    assert model.score("deu", ref, posts["deu"]).empty
    ref = model.share("eng", posts["eng"], pooled, Progress())
    assert len(model.score("eng", ref, posts["eng"])) == len(posts["eng"])


def test_each_language_is_probed_with_its_own_dev_posts_and_no_other_takes_its_share(
    trained: tuple[PooledBackbone, Path], posts: dict[str, pd.DataFrame]
) -> None:
    model, root = trained
    pooled = model.train_all(posts, Progress())
    for code, table in posts.items():
        ref = model.share(code, table, pooled, Progress())
        probes = model.probes(ref, table)
        dev = table[table["split"] == "dev"]
        assert probes["id"].tolist() == dev["id"].tolist() and (probes["fold"] >= 0).all()
        kept = sorted(root.rglob("*"))
        again = model.logits(code, ref, dev["text"].tolist(), (0,))["label"]
        np.testing.assert_allclose(probes["logit"], again, atol=1e-5)
        assert sorted(root.rglob("*")) == kept
        other = "deu" if code == "eng" else "eng"
        for ask in (
            lambda ref=ref, other=other: model.score(other, ref, posts[other]),
            lambda ref=ref, other=other: model.logits(other, ref, ["a"], (0,)),
        ):
            with pytest.raises(InputError, match=f"language is '{code}', not '{other}'"):
                ask()
    with pytest.raises(InputError, match="was trained with other settings"):  # a share is no pooled adapter
        model.share("deu", posts["deu"], ref, Progress())


def test_what_the_training_of_all_took_is_known_when_it_is_found_again(
    trained: tuple[PooledBackbone, Path], posts: dict[str, pd.DataFrame]
) -> None:
    model, _ = trained
    found = Progress()
    model.train_all(posts, found)
    assert found.figures["train_seconds"] > 0 and found.figures["final-seed-0/loss"] > 0


FAMILIES = {"eng": "indo-european-germanic", "deu": "indo-european-germanic", "tel": "dravidian"}


@pytest.fixture(scope="module")
def three(posts: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Two Germanic languages and one that is alone."""
    few = posts["eng"].assign(text="తెలుగు " + posts["eng"]["text"])
    return posts | {"tel": few}


def test_each_family_has_an_adapter_that_knows_nothing_of_the_others(
    three: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    """The same as training each family's languages alone."""
    done: list[float] = []
    model = backbone(tmp_path / "all", scope="family")
    found = Progress(advance=lambda now, total, unit: done.append(now / total) if unit == "tokens" else None)
    pooled = model.train_all(three, found)
    assert done == sorted(done) and done[0] == 0 and done[-1] == pytest.approx(1)
    assert any(share == pytest.approx(1 / 3) for share in done)  # Telugu comes first
    assert [ref.language for ref in model.adapters(pooled)] == ["all", "dravidian", "indo-european-germanic"]
    assert found.figures["indo-european-germanic/final-seed-0/loss"] > 0 and found.figures["train_seconds"] > 0
    alone = backbone(tmp_path / "alone", scope="family")
    for codes in (("eng", "deu"), ("tel",)):
        other = alone.train_all({code: three[code] for code in codes}, Progress())
        for code in codes:
            ref = model.share(code, three[code], pooled, Progress())
            assert ref == alone.share(code, three[code], other, Progress())
            scores = model.score(code, ref, three[code])
            assert scores["id"].tolist() == three[code]["id"].tolist() and scores["logit"].std() > 0
            outside = (three[code]["fold"] < 0).to_numpy()
            again = model.logits(code, ref, three[code].loc[outside, "text"].tolist(), (0,))["label"]
            np.testing.assert_allclose(again, scores["logit"].to_numpy()[outside], atol=1e-6)


def test_other_posts_of_a_language_train_its_family_again_and_no_other(
    three: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    model = backbone(tmp_path, scope="family")
    pooled = model.train_all(three, Progress())
    shares = {code: model.share(code, table, pooled, Progress()) for code, table in three.items()}
    changed = three | {"deu": three["deu"].assign(text=three["deu"]["text"] + "!")}
    with pytest.raises(InputError, match="other posts of deu: materialize it again first"):
        model.share("deu", changed["deu"], pooled, Progress())
    said: list[str] = []
    again = model.train_all(changed, Progress(said.append))
    assert "dravidian: trained before, nothing to do" in said and again.sha256 != pooled.sha256
    new = {code: model.share(code, table, again, Progress()) for code, table in changed.items()}
    assert [code for code in three if new[code] == shares[code]] == ["tel"]
    for wrong in (shares["tel"], model.adapters(again)[1]):  # a share, and a family's own
        with pytest.raises(InputError, match="was trained with other settings"):
            model.share("tel", three["tel"], wrong, Progress())
    with pytest.raises(InputError, match="was trained with other settings or on other posts of tel"):
        model.share("tel", three["tel"], model.train_all({"eng": three["eng"]}, Progress()), Progress())


def test_a_family_is_a_name_of_files() -> None:
    assert {code: LANGUAGES[code].family_key for code in FAMILIES} == FAMILIES
    keys = {language.family_key for language in LANGUAGES.values()}
    assert len(keys) == 13 and keys.isdisjoint({*LANGUAGES, "all"})


def test_the_tag_is_the_name_of_the_language() -> None:
    assert tag("deu", "Hallo") == "[German] Hallo"
