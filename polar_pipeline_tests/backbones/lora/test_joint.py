"""Adapters that are trained at once become what each becomes alone, and a group that was killed ends as one that was not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora.adapter import WEIGHTS, Slot
from polar_pipeline.backbones.lora.checkpoint import read_checkpoint
from polar_pipeline.backbones.lora.joint import train_adapters
from polar_pipeline.backbones.lora.loading import load_base
from polar_pipeline.backbones.lora.rows import Fit, Rows
from polar_pipeline.backbones.lora.training import train_adapter
from polar_pipeline.settings.backbones import LoraSettings
from polar_pipeline_tests.backbones.lora import processes

PLAIN: dict[str, Any] = {
    "name": "t",
    "kind": "lora",
    "model": "tiny:gemma3",
    "device": "cpu",
    "rank": 4,
    "alpha": 8,
    "learning_rate": 5e-3,
}
PLAIN |= {"max_length": 32, "token_budget": 96, "epochs": 2, "checkpoint_seconds": 1e9, "weight_decay": 0.1}


def settings_of(**changed: Any) -> LoraSettings:
    return LoraSettings(**(PLAIN | changed))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bases")


def slot_of(settings: LoraSettings, root: Path) -> Slot:
    return Slot(load_base(settings, root), settings)


def fit_of(language: str, count: int, longest: int, seed: int = 3) -> Fit:
    random = np.random.default_rng(len(language) + count)
    tokens = [random.integers(4, 260, length) for length in random.integers(2, longest, count)]
    rows = Rows(tokens, random.integers(0, 2, count), np.zeros(count, dtype=bool))
    watch = Rows(tokens[:5], rows.labels[:5], rows.synthetic[:5])
    return Fit(f"{language} final model", "final-seed-0", rows, random.uniform(0.5, 2, count), watch, seed)


FITS = [fit_of("aa", 21, 30), fit_of("bbb", 12, 12, seed=5), fit_of("cccc", 33, 16)]


class Kept(Progress):
    """Every loss that is measured, and the step after which the process ends, if any."""

    def __init__(self, killed_at: int | None = None) -> None:
        super().__init__(measure=self.keep)
        self.found: dict[tuple[int, str], float] = {}
        self.killed_at = killed_at

    def keep(self, step: int, values: dict[str, float]) -> None:
        if step == self.killed_at:
            raise KeyboardInterrupt
        self.found |= {(step, name): value for name, value in values.items() if "tokens_per_second" not in name}


@pytest.fixture(autouse=True)
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polar_pipeline.backbones.lora.pace.Pace.due", lambda _: True)


def alone(slot: Slot, fit: Fit, settings: LoraSettings) -> tuple[dict[str, bytes], dict[tuple[int, str], float]]:
    kept = Kept()
    train_adapter(slot, fit, settings, Path("none"), kept)
    return slot.files(), kept.found


def largest_gap(one: dict[str, bytes], other: dict[str, bytes]) -> float:
    first, second = load(one[WEIGHTS]), load(other[WEIGHTS])
    assert set(first) == set(second)
    return max(float((first[name].float() - second[name].float()).abs().max()) for name in first)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"model": "tiny:xlm_roberta"},
        {"model": "tiny:qwen3", "accumulate": 2, "loss": "focal", "schedule": "cosine"},
        {"clip": 0.01, "recompute": "always"},
        {"target_modules": ("q_proj", "down_proj")},
    ],
    ids=lambda changed: "-".join(map(str, changed)) or "plain",
)
def test_every_loss_and_adapter_is_that_of_a_training_alone(root: Path, changed: dict[str, Any]) -> None:
    settings = settings_of(**changed)
    slot, kept = slot_of(settings, root), Kept()
    together = train_adapters(slot, FITS, settings, Path("none"), kept)
    for fit, files in zip(FITS, together, strict=True):
        expected, losses = alone(slot, fit, settings)
        name = fit.title.replace(" ", "-")
        assert len(losses) > 4
        for (step, measure), value in losses.items():
            assert kept.found[step, measure.replace(fit.key, name)] == pytest.approx(value, abs=1e-4)
        assert largest_gap(files, expected) < 1e-3  # Adam makes much of rounding where gradients are next to nothing
        assert any(value.abs().max() > 0 for key, value in load(files[WEIGHTS]).items() if "lora_B" in key)


def test_bfloat16_and_four_bit_stay_near_a_training_alone(root: Path) -> None:
    for changed in ({"dtype": "bfloat16"}, {"four_bit": True}):
        settings = settings_of(**changed)
        slot, kept = slot_of(settings, root), Kept()
        train_adapters(slot, FITS[:2], settings, Path("none"), kept)
        _, losses = alone(slot, FITS[0], settings)
        for (step, measure), value in losses.items():
            if measure.endswith("/loss"):
                assert kept.found[step, f"aa-final-model{measure.removeprefix(FITS[0].key)}"] == pytest.approx(
                    value, abs=0.02
                )


def test_an_adapter_does_not_depend_on_its_neighbours_and_is_loaded_by_its_files(root: Path, tmp_path: Path) -> None:
    settings = settings_of()
    slot = slot_of(settings, root)
    logits = []
    for place, group in enumerate((FITS[:1], FITS, FITS[::-1])):
        files = train_adapters(slot, group, settings, Path("none"), Progress())[group.index(FITS[0])]
        folder = tmp_path / str(place)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        slot.load(folder)
        logits.append(slot.base.logits(FITS[0].rows.tokens).detach().numpy())
    assert np.ptp(logits[0]) > 0.01
    np.testing.assert_allclose(logits[1], logits[0], atol=1e-4)
    np.testing.assert_allclose(logits[2], logits[0], atol=1e-4)


def test_a_step_that_is_not_finite_is_left_out_for_its_own_adapter_alone(root: Path) -> None:
    settings = settings_of()
    slot = slot_of(settings, root)
    labels = FITS[1].rows.labels.astype(float)
    labels[4] = np.nan
    spoiled = FITS[1]._replace(rows=FITS[1].rows._replace(labels=labels))
    files = train_adapters(slot, [FITS[0], spoiled], settings, Path("none"), Progress())
    assert all(torch.isfinite(value).all() for value in load(files[1][WEIGHTS]).values())
    assert largest_gap(files[0], alone(slot, FITS[0], settings)[0]) < 1e-3
    assert largest_gap(files[1], alone(slot, spoiled, settings)[0]) < 1e-3
    assert largest_gap(files[1], alone(slot, FITS[1], settings)[0]) > 3e-3


@pytest.mark.parametrize("killed_at", [2, 7])
def test_a_killed_group_goes_on_to_the_same_bytes(root: Path, tmp_path: Path, killed_at: int) -> None:
    settings = settings_of(checkpoint_seconds=0)
    slot = slot_of(settings, root)
    whole = train_adapters(slot, FITS, settings, tmp_path / "whole", Progress())
    with pytest.raises(KeyboardInterrupt):
        train_adapters(slot, FITS, settings, tmp_path / "killed", Kept(killed_at))
    found = read_checkpoint(tmp_path / "killed")
    assert found is not None
    assert found[1]["position"] == killed_at - 1
    kept = Kept()
    again = train_adapters(slot, FITS, settings, tmp_path / "killed", kept)
    assert min(step for step, _ in kept.found) == killed_at
    assert [files[WEIGHTS] for files in again] == [files[WEIGHTS] for files in whole]


@pytest.mark.parametrize("moments", [["checkpoint 1", "step 4", "writing 2"]])
def test_a_group_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path: Path, moments: list[str]) -> None:
    """After a checkpoint, between the steps of two adapters, and while a checkpoint is written."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    processes.train_group(tmp_path / "first", whole, "never")
    slot_of(settings_of(), tmp_path / "second" / "bases")  # so that what is written is checkpoints
    for moment in moments:
        assert processes.run(processes.train_group, tmp_path / "second", killed, moment) == -9, moment
    checkpoint = read_checkpoint(tmp_path / "second" / "checkpoint")
    assert checkpoint is not None and checkpoint[1]["position"] > 0 and not killed.exists()
    assert processes.run(processes.train_group, tmp_path / "second", killed, "never") == 0
    files = sorted(file.relative_to(whole) for file in whole.rglob("*") if file.is_file())
    assert len(files) == 6
    assert all((whole / file).read_bytes() == (killed / file).read_bytes() for file in files)


@pytest.mark.parametrize("change", ["origin", "seed"])
def test_a_checkpoint_over_other_posts_of_a_neighbour_is_left_alone(root: Path, tmp_path: Path, change: str) -> None:
    """Titles, keys and numbers of steps are the same: only what a model is made of tells."""
    settings = settings_of(checkpoint_seconds=0)
    slot = slot_of(settings, root)
    group = [fit._replace(origin=fit.title) for fit in FITS[:2]]
    train_adapters(slot, group, settings, tmp_path / "one", Progress())
    kept = Kept()
    other = group[1]._replace(**{change: "other posts" if change == "origin" else 77})
    train_adapters(slot, [group[0], other], settings, tmp_path / "one", kept)
    assert min(step for step, _ in kept.found) == 1


def test_a_checkpoint_of_another_group_is_left_alone(root: Path, tmp_path: Path) -> None:
    settings = settings_of(checkpoint_seconds=0)
    slot = slot_of(settings, root)
    train_adapters(slot, FITS[1:], settings, tmp_path / "one", Progress())
    kept = Kept()
    train_adapters(slot, FITS[:2], settings, tmp_path / "one", kept)
    assert min(step for step, _ in kept.found) == 1


def test_memory_that_runs_out_once_halves_the_batches(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of()
    slot = slot_of(settings, root)
    plain, calls = slot.base.logits, list[int]()

    def short(rows: list[np.ndarray]) -> torch.Tensor:
        calls.append(len(rows))
        if len(calls) == 3:
            raise torch.OutOfMemoryError
        return plain(rows)

    monkeypatch.setattr(slot.base, "logits", short)
    said: list[str] = []
    files = train_adapters(slot, FITS, settings, Path("none"), Progress(said.append))
    assert sum("two halves" in line for line in said) == 1
    monkeypatch.undo()
    for fit, mine in zip(FITS, files, strict=True):
        assert largest_gap(mine, alone(slot, fit, settings)[0]) < 1e-3


@pytest.mark.parametrize("changed", [{"dropout": 0.1}, {"patience": 1}, {"tuning": "full"}, {"scope": "pooled"}])
def test_what_a_group_cannot_do_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="together trains"):
        settings_of(together=2, **changed)


def test_an_encoders_own_dropout_follows_the_setting_and_comes_back(root: Path) -> None:
    settings = settings_of(model="tiny:xlm_roberta")
    slot = slot_of(settings, root)
    drops = [module for module in slot.base.model.modules() if isinstance(module, torch.nn.Dropout)]
    before = [drop.p for drop in drops]
    first, second = alone(slot, FITS[0], settings)[1], alone(slot, FITS[0]._replace(watch=None), settings)[1]
    assert max(before) > 0
    assert first[1, "final-seed-0/loss"] == second[1, "final-seed-0/loss"]
    assert [drop.p for drop in drops] == before
