"""A training that was killed ends as one that was not; memory that runs out costs time and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora import training
from polar_pipeline.backbones.lora.base_model import BaseModel, score_tokens
from polar_pipeline.backbones.lora.checkpoints import read_checkpoint
from polar_pipeline.backbones.lora.dataset import TokenizedRows, training_steps
from polar_pipeline.backbones.lora.loading import load_base
from polar_pipeline.backbones.lora.training import train_model
from polar_pipeline.backbones.lora.tunable import ADAPTER_WEIGHTS as WEIGHTS
from polar_pipeline.backbones.lora.tunable import AdaptedModel
from polar_pipeline.errors import InputError
from polar_pipeline_tests.backbones.lora import processes
from polar_pipeline_tests.backbones.lora.examples import Reads, fit, settings


def trained(slot: AdaptedModel, root: Path, **changes: Any) -> tuple[dict[str, torch.Tensor], list[str]]:
    """What an adapter weighs in the end, and what was said on the way."""
    said: list[str] = []
    chosen = settings(**changes)
    slot.configure(chosen)
    train_model(slot, fit(slot.base), chosen, root / "checkpoint", Progress(said.append))
    return load(slot.files()[WEIGHTS]), said


def far(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max(float((first[name] - second[name]).abs().max()) for name in first)


KILLED: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["writing 1", "step 2", "checkpoint 2", "writing 2"]),  # the first while the tiny checkpoint is built
    # `auto` measures what a token needs, which draws from the random numbers of dropout
    ({"dropout": 0.1, "recompute": "auto"}, ["checkpoint 1", "writing 1", "step 2"]),
    ({"model": "tiny:xlm_roberta"}, ["checkpoint 2"]),  # its own dropout is not a setting
    # the rate is so high that epochs get worse, and the last checkpoint is written where training ends early
    ({"epochs": 6, "patience": 1, "learning_rate": 0.5, "token_budget": 512}, ["checkpoint 1", "checkpoint 1"]),
]


@pytest.mark.parametrize(("changes", "moments"), KILLED, ids=["plain", "dropout", "encoder", "patience"])
def test_a_killed_training_ends_with_the_same_bytes(
    tmp_path: Path, changes: dict[str, Any], moments: list[str]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    processes.train_files(tmp_path / "first", whole, "never", changes)
    for moment in moments:
        assert processes.run(processes.train_files, tmp_path / "second", killed, moment, changes) == -9, moment
    assert not killed.exists()
    assert processes.run(processes.train_files, tmp_path / "second", killed, "never", changes) == 0
    names = sorted(file.name for file in whole.iterdir())
    assert len(names) == 2 and names == sorted(file.name for file in killed.iterdir())
    for name in names:
        assert (whole / name).read_bytes() == (killed / name).read_bytes(), name


def test_a_training_that_ended_early_does_not_go_on_after_a_kill(slot: AdaptedModel, tmp_path: Path) -> None:
    """The checkpoint of the last step says so: going on would be one more epoch, and could find another best."""
    changes = {"epochs": 8, "patience": 1, "learning_rate": 0.5, "token_budget": 512, "checkpoint_seconds": 0}
    first, said = trained(slot, tmp_path, **changes)
    stopped = read_checkpoint(tmp_path / "checkpoint")
    assert stopped is not None and stopped[1]["position"] < 8, said
    again, said = trained(slot, tmp_path, **changes)
    assert len(said) == 1 and "goes on after" in said[0]
    assert far(first, again) == 0


def test_it_learns_and_says_how_far_it_is(slot: AdaptedModel, tmp_path: Path) -> None:
    measured: list[tuple[int, dict[str, float]]] = []
    said: list[str] = []
    task = fit(slot.base, rows=40, watched=20)
    chosen = settings(epochs=15, learning_rate=0.01, token_budget=256)
    slot.configure(chosen)
    progress = Progress(said.append, lambda step, values: measured.append((step, values)))
    train_model(slot, task, chosen, tmp_path / "checkpoint", progress)
    losses = [values["final-seed-0/loss"] for _, values in measured if "final-seed-0/loss" in values]
    assert losses[-1] < losses[0] / 2
    logits = score_tokens(slot.base, task.rows.tokens, 256)
    assert ((logits > 0) == task.rows.labels).mean() > 0.9
    dev = [values["final-seed-0/dev_macro_f1"] for _, values in measured if "final-seed-0/dev_macro_f1" in values]
    assert len(dev) == 15 and all(0 <= value <= 1 for value in dev)
    assert any("deu final model: step" in line and "tokens/s" in line for line in said)
    assert any("left" in line for line in said) and not any("left" in line for line in said[-2:])


def test_the_callers_random_numbers_and_the_base_stay_as_they_were(slot: AdaptedModel, tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    trained(slot, tmp_path, dropout=0.2)
    assert torch.equal(before, torch.get_rng_state())
    assert not slot.base.model.training


def test_early_stopping_keeps_the_best_epoch(slot: AdaptedModel, tmp_path: Path) -> None:
    """The loss on the watched rows, computed again from the logits, is the smallest that was measured, not the last."""
    measured: list[float] = []
    task = fit(slot.base)

    def listen(step: int, values: dict[str, float]) -> None:
        measured.extend(value for name, value in values.items() if name.endswith("dev_loss"))

    chosen = settings(epochs=8, patience=2, learning_rate=0.3, token_budget=512, warm_up=0)
    slot.configure(chosen)
    train_model(slot, task, chosen, tmp_path / "checkpoint", Progress(None, listen))
    best = int(np.argmin(measured))
    assert best < len(measured) - 1  # else the last would do
    assert len(measured) == min(best + 3, 8)
    assert task.watch is not None
    logits = torch.from_numpy(score_tokens(slot.base, task.watch.tokens, 128))
    labels = torch.from_numpy(task.watch.labels).double()
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    assert float(loss) == pytest.approx(measured[best], abs=1e-6)


def test_a_warm_up_is_never_the_best_and_uses_no_patience(
    slot: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter that saw synthetic posts alone has the smallest loss here, and is not kept."""
    losses = iter([0.1, 0.5, 0.4, 0.6, 0.7])
    seen: list[dict[str, torch.Tensor]] = []

    def watched(*given: object) -> float:
        seen.append({name: value.detach().clone() for name, value in slot.parameters().items()})
        return next(losses)

    monkeypatch.setattr(training._Training, "_evaluate", watched)
    task = fit(slot.base)
    synthetic = np.arange(len(task.rows.labels)) % 2 == 0
    chosen = settings(synthetic="warm_up", epochs=6, patience=2)
    train_model(
        slot, task._replace(rows=task.rows._replace(synthetic=synthetic)), chosen, tmp_path / "checkpoint", Progress()
    )
    assert len(seen) == 5  # the warm-up, then the best is the second epoch, and two without progress
    assert all(torch.equal(value, seen[2][name]) for name, value in slot.parameters().items())


def test_losses_are_read_only_where_they_are_said(
    slot: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read waits for a GPU, which then waits for the host: per epoch one for the loss, one for bad steps."""
    chosen = settings(token_budget=32, epochs=2)
    task = fit(slot.base, watched=0)
    steps = training_steps(task.rows.lengths, task.rows.synthetic, chosen, task.random_seed)
    assert len(steps) > 8
    with Reads() as reads:
        train_model(slot, task, chosen, tmp_path / "checkpoint", Progress())
    assert reads.count == 2 * 2


def test_all_that_a_step_needs_is_there_before_the_model_begins(
    slot: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    copy = BaseModel.to_device

    def copied(base: BaseModel, values: np.ndarray) -> torch.Tensor:
        happened.append("copy")
        return copy(base, values)

    monkeypatch.setattr(BaseModel, "to_device", copied)
    hook = slot.base.trunk.register_forward_pre_hook(lambda *_: happened.append("model"))
    chosen = settings(token_budget=1024)
    train_model(slot, fit(slot.base, watched=0), chosen, tmp_path / "checkpoint", Progress())
    hook.remove()
    assert happened == ["copy", "copy", "copy", "model"]


def test_the_loss_that_is_said_is_the_mean_of_the_steps_rows(
    slot: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[tuple[int, dict[str, float]]] = []
    monkeypatch.setattr("polar_pipeline.backbones.lora.training._LOG_SECONDS", 0)
    chosen = settings(token_budget=64, learning_rate=1e-9)
    task = fit(slot.base, watched=0)
    progress = Progress(None, lambda step, values: measured.append((step, values)))
    train_model(slot, task, chosen, tmp_path / "checkpoint", progress)
    logits = torch.from_numpy(score_tokens(slot.base, task.rows.tokens, 64))
    losses = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, torch.from_numpy(task.rows.labels).double(), reduction="none"
    )
    steps = training_steps(task.rows.lengths, task.rows.synthetic, chosen, task.random_seed)
    assert len({len(np.concatenate(step.batches)) for step in steps}) > 1
    for (_, values), step in zip(measured, steps, strict=True):
        expected = float(losses[np.concatenate(step.batches)].mean())
        assert values["final-seed-0/loss"] == pytest.approx(expected, abs=1e-5)


class Exhausted:
    """Logits of a base that has memory for few tokens: it fails a number of times, or above a number of rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, times: int) -> None:
        self.left, self.rows, plain = times, [], BaseModel.logits

        def logits(base: BaseModel, rows: list[np.ndarray]) -> torch.Tensor:
            if torch.is_grad_enabled():
                self.rows.append(len(rows))
                if len(self.rows) > 2 and self.left:
                    self.left -= 1
                    raise torch.OutOfMemoryError("CUDA out of memory")
            return plain(base, rows)

        monkeypatch.setattr(BaseModel, "logits", logits)


def test_memory_that_runs_out_once_halves_batches_and_changes_nothing(
    slot: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, said = trained(slot, tmp_path / "a", accumulate=2, token_budget=64)
    assert not any("memory" in line for line in said)
    exhausted = Exhausted(monkeypatch, times=1)
    halved, said = trained(slot, tmp_path / "b", accumulate=2, token_budget=64)
    assert [line for line in said if "memory" in line] == [
        "deu final model: out of memory, so each batch is computed in two halves from now on"
    ]
    before, after = exhausted.rows[:2], exhausted.rows[3:]
    assert max(after) <= (max(before) + 1) // 2 + 1 and max(before) >= 2
    assert far(whole, halved) < 1e-5


def test_memory_that_runs_out_twice_is_an_error_that_names_settings(
    slot: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Exhausted(monkeypatch, times=2)
    with pytest.raises(
        InputError, match=r"'tiny' has not enough memory for half of token_budget 64 either: lower it, set"
    ):
        trained(slot, tmp_path, token_budget=64)
    assert not slot.base.model.training


def test_halves_are_remembered_after_a_kill(
    slot: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Exhausted(patch, times=1)
        trained(slot, tmp_path, token_budget=64, checkpoint_seconds=0)
    found = read_checkpoint(tmp_path / "checkpoint")
    assert found is not None and found[1]["parts"] == 2


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_recomputing_gives_the_same_adapter(slot: AdaptedModel, tmp_path: Path, dropout: float) -> None:
    never, always, auto = (
        trained(slot, tmp_path / mode, recompute=mode, dropout=dropout)[0] for mode in ("never", "always", "auto")
    )
    assert far(never, always) < 1e-6
    assert far(never, auto) == 0  # how it is computed is no part of what it is


def test_recomputing_recomputes(slot: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for mode in ("never", "always"):
        calls = 0

        def count(*given: object) -> None:
            nonlocal calls
            calls += torch.is_grad_enabled()

        hook = slot.base.model.model.layers[2].mlp.register_forward_hook(count)
        trained(slot, tmp_path / mode, recompute=mode)
        hook.remove()
        counts.append(calls)
    assert counts[1] == 2 * counts[0] > 0


def test_synthetic_rows_come_first_and_once_where_they_are_a_warm_up() -> None:
    synthetic = np.arange(20) % 2 == 0
    rows = TokenizedRows([np.ones(8, dtype=np.int64)] * 20, np.zeros(20, dtype=int), synthetic)
    steps = training_steps(
        rows.lengths, rows.synthetic, settings(synthetic="warm_up", epochs=3, token_budget=32), seed=1
    )
    order = np.concatenate([np.concatenate(step.batches) for step in steps])
    assert sorted(order[:10]) == list(range(0, 20, 2))
    assert np.bincount(order, minlength=20).tolist() == [1, 3] * 10
    assert sum(step.ends_epoch for step in steps) == 4
    mixed = training_steps(rows.lengths, rows.synthetic, settings(epochs=3, token_budget=32), seed=1)
    assert np.bincount(np.concatenate([np.concatenate(step.batches) for step in mixed])).tolist() == [3] * 20
    real = TokenizedRows(rows.tokens, rows.labels, np.zeros(20, dtype=bool))
    assert (
        sum(
            step.ends_epoch
            for step in training_steps(real.lengths, real.synthetic, settings(synthetic="warm_up", epochs=3), seed=1)
        )
        == 3
    )


def test_accumulated_batches_give_the_gradient_of_one_large_batch(slot: AdaptedModel, tmp_path: Path) -> None:
    """Batches of a step are weighed by their rows: a mean of means would count a row of a short batch for more."""
    one, _ = trained(slot, tmp_path / "a", token_budget=4096)
    many, _ = trained(slot, tmp_path / "b", token_budget=64, accumulate=100)
    assert far(one, many) < 1e-5


@pytest.mark.parametrize("damage", [b"", b"no checkpoint at all", "cut"])
def test_a_damaged_checkpoint_is_named_and_training_begins_anew(
    slot: AdaptedModel, tmp_path: Path, damage: bytes | str
) -> None:
    whole, _ = trained(slot, tmp_path, checkpoint_seconds=0)
    path = tmp_path / "checkpoint"
    path.write_bytes(path.read_bytes()[:-50] if isinstance(damage, str) else damage)
    again, said = trained(slot, tmp_path)
    assert f"deu final model: {path} is damaged, so its training begins anew" in said
    assert far(whole, again) == 0


def test_gradients_that_stay_not_finite_are_an_error(
    slot: AdaptedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = training.row_losses
    monkeypatch.setattr(training, "row_losses", lambda *given: losses(*given) * float("nan"))
    with pytest.raises(InputError, match="not finite: lower learning_rate"):
        trained(slot, tmp_path, epochs=5, token_budget=32)


def test_no_rows_is_an_adapter_that_changes_nothing(bases_root: Path, tmp_path: Path) -> None:
    chosen = settings()
    slot = AdaptedModel(load_base(chosen, bases_root), chosen)
    train_model(slot, fit(slot.base, rows=0, watched=0), chosen, tmp_path / "checkpoint", Progress())
    assert all(float(value.abs().sum()) == 0 for name, value in load(slot.files()[WEIGHTS]).items() if "lora_B" in name)
