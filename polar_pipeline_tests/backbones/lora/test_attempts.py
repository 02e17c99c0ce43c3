"""What ran out of memory is let go of before anything is tried again; what cannot be cut in halves is one sentence."""

import weakref
from pathlib import Path

import pytest
import torch

from polar_pipeline.backbones.base import Progress
from polar_pipeline.backbones.lora import loading, optimizer, training
from polar_pipeline.backbones.lora.adapter import Slot
from polar_pipeline.backbones.lora.attempts import Parts, attempted
from polar_pipeline.backbones.lora.joint import train_adapters
from polar_pipeline.backbones.lora.loading import load_base
from polar_pipeline.backbones.lora.training import train_adapter
from polar_pipeline.errors import InputError
from polar_pipeline_tests.backbones.lora.examples import fit, settings


class Graph:
    """Something that a failed call holds in its frame, in a circle as autograd's are."""

    def __init__(self) -> None:
        self.itself = self


def test_the_failed_call_holds_nothing_when_memory_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the handler, the traceback would hold the frame, and the frame the tensors."""
    held: list[weakref.ref[Graph]] = []
    alive: list[bool] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: alive.append(held[-1]() is not None))

    def work() -> int:
        graph = Graph()
        held.append(weakref.ref(graph))
        raise torch.OutOfMemoryError

    assert attempted(work) is None
    assert alive == [False]


def test_halves_once_and_then_a_sentence() -> None:
    said: list[str] = []
    for most, adapters in ((1, 1), (2, 1), (0, 3)):
        parts = Parts(settings(), Progress(said.append), adapters)

        def work(parts: Parts = parts, most: int = most) -> int:
            if parts.count > most > 0:
                raise AssertionError("cut though it fits")
            if parts.count < most or not most:
                raise torch.OutOfMemoryError
            return parts.count

        if most:
            assert parts.compute("deu", work) == most
        else:
            with pytest.raises(InputError, match="half of token_budget 128 for 3 adapters either: lower together or"):
                parts.compute("deu", work)
    assert said == ["deu: out of memory, so each batch is computed in two halves from now on"] * 2


def exhausted(*_: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("place", ["optimizer", "probe", "fresh"])
@pytest.mark.parametrize("together", [False, True])
def test_memory_that_runs_out_elsewhere_in_training_is_a_sentence(
    slot: Slot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, together: bool
) -> None:
    if place == "optimizer":
        monkeypatch.setattr(optimizer.Optimizer, "step", exhausted)
    elif place == "probe":
        for module in ("training", "joint"):
            monkeypatch.setattr(f"polar_pipeline.backbones.lora.{module}.should_recompute", exhausted)
    else:
        monkeypatch.setattr(Slot, "fresh", exhausted)
    with pytest.raises(InputError, match=r"'tiny' has not enough memory to train beside its base: lower token_budget"):
        if together:
            train_adapters(slot, [fit(slot.base)] * 2, settings(), tmp_path / "checkpoint", Progress())
        else:
            train_adapter(slot, fit(slot.base), settings(), tmp_path / "checkpoint", Progress())
    assert not slot.base.model.training


def test_memory_that_runs_out_while_loading_is_a_sentence(bases_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_weights", exhausted)
    with pytest.raises(
        InputError, match=r"'tiny:gemma3' of backbone 'tiny' ran out of memory while it was loaded: set"
    ):
        load_base(settings(), bases_root)


def test_a_step_is_tried_again_from_nothing(slot: Slot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients of the part that had been computed are forgotten, or they would count twice."""
    backward, calls = torch.Tensor.backward, 0

    def second_fails(tensor: torch.Tensor) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise torch.OutOfMemoryError
        backward(tensor)

    chosen = settings(token_budget=64, accumulate=100)
    train_adapter(slot, fit(slot.base), chosen, tmp_path / "a", Progress())
    expected = {name: value.detach().clone() for name, value in slot.parameters().items()}
    monkeypatch.setattr(torch.Tensor, "backward", second_fails)
    train_adapter(slot, fit(slot.base), chosen, tmp_path / "b", Progress())
    assert calls > 3 and training.Parts is Parts
    for name, value in slot.parameters().items():
        torch.testing.assert_close(value, expected[name], atol=1e-5, rtol=0)
