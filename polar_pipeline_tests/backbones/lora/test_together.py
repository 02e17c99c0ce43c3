"""Models of several languages in one step each: whatever happens on the way, each language is what its own posts make it."""

from pathlib import Path

import pandas as pd
import pytest

from polar_pipeline.backbones.artifacts import AdapterRef
from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora import models as module
from polar_pipeline.backbones.lora.backbone import LoraBackbone
from polar_pipeline.backbones.lora.bases import Bases
from polar_pipeline_tests.backbones.lora.examples import CARD, posts, settings

Tables = dict[str, pd.DataFrame]


@pytest.fixture
def tables() -> Tables:
    """Two languages with three models each; the second one's texts are others."""
    return {"deu": posts(), "eng": posts().assign(text=lambda table: table["text"].str.upper())}


def backbone(together: int = 4) -> LoraBackbone:
    chosen = settings(together=together, checkpoint_seconds=0, token_budget=64, epochs=2)
    return LoraBackbone(chosen, seed=1, folds=2, bases=Bases())


def trained(tables: Tables, root: Path, progress: Progress | None = None, together: int = 4) -> dict[str, AdapterRef]:
    model = backbone(together)
    model.train_together(tables, CARD, root, dict.fromkeys(tables, progress or Progress()))
    return {code: model.train(code, table, CARD, root, progress or Progress()) for code, table in tables.items()}


def killed_at(step: int, group: int = 1) -> Progress:
    """Ends the process, as it were, when the losses of this step of a group are measured."""
    groups: list[int] = []

    def measure(now: int, values: dict[str, float]) -> None:
        if not groups or now < groups[-1]:
            groups.append(now)
        groups[-1] = now
        if len(groups) == group and now >= step:
            raise KeyboardInterrupt

    return Progress(measure=measure)


def test_a_neighbours_posts_belong_to_the_checkpoint(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in a step for both; then the neighbour's labels are corrected. Its first steps must not be those on the old ones."""
    monkeypatch.setattr("polar_pipeline.backbones.lora.pace.Pace.due", lambda _: True)
    with pytest.raises(KeyboardInterrupt):
        trained(tables, tmp_path / "root", killed_at(4))
    assert list((tmp_path / "root").rglob("*.checkpoint"))
    inside = tables["eng"]["split"] == "train"
    flipped = tables["eng"]["label"].where(~inside, 1 - tables["eng"]["label"])
    changed = tables | {"eng": tables["eng"].assign(label=flipped)}
    said: list[str] = []
    again = trained(changed, tmp_path / "root", Progress(said.append))
    assert again == trained(changed, tmp_path / "clean")
    assert not any("go on after" in line for line in said)


def test_a_killed_group_goes_on_when_nothing_changed(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polar_pipeline.backbones.lora.pace.Pace.due", lambda _: True)
    with pytest.raises(KeyboardInterrupt):
        trained(tables, tmp_path / "root", killed_at(4))
    said: list[str] = []
    again = trained(tables, tmp_path / "root", Progress(said.append))
    assert any("4 adapters go on after step 3" in line for line in said)
    assert again == trained(tables, tmp_path / "clean")


def test_languages_may_have_other_numbers_of_models(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has no folds and one model, the second has three: they meet in groups as far as they go."""
    groups: list[list[str]] = []
    train = module.train_adapters

    def noted(slot: object, fits: list[module.Model], *given: object) -> object:
        groups.append([fit.title for fit in fits])
        return train(slot, fits, *given)

    monkeypatch.setattr(module, "train_adapters", noted)
    uneven = {"deu": posts(folds=0), "eng": tables["eng"]}
    for order in (("deu", "eng"), ("eng", "deu")):
        groups.clear()
        refs = trained({code: uneven[code] for code in order}, tmp_path / order[0], together=2)
        assert set(refs) == {"deu", "eng"}
        assert sorted(title for group in groups for title in group) == [
            "deu final model", "eng final model", "eng fold 1 of 2", "eng fold 2 of 2",
        ]  # fmt: skip
        assert [len(group) for group in groups] == [2, 2]


def test_languages_with_models_enough_are_trained_by_themselves(
    tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "train_adapters", lambda *_: pytest.fail("trained together"))
    backbone(together=3).train_together(tables, CARD, tmp_path, dict.fromkeys(tables, Progress()))
