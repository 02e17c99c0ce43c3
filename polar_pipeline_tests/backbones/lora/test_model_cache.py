"""A base is loaded once for as many backbones as differ only in how they train."""

from pathlib import Path

import pytest
import torch

from polar_pipeline.backbones.lora import loading
from polar_pipeline.backbones.lora.loading import ModelCache
from polar_pipeline.errors import InputError
from polar_pipeline_tests.backbones.lora.examples import settings


def test_one_base_serves_backbones_that_load_the_same(tmp_path: Path) -> None:
    bases = ModelCache()
    first = bases.get(settings(), tmp_path)
    assert bases.get(settings(name="other", rank=8, learning_rate=0.1), tmp_path) is first
    first.fresh(1)
    assert any(value.shape == (8, 64) for value in first.parameters().values())  # as the last one wants it
    assert bases.loads == 1


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_where_posts_are_cut_is_no_reason_to_load_again(tmp_path: Path, tuning: str) -> None:
    bases = ModelCache()
    lengths = []
    for most in (32, 16, 32):
        base = bases.get(settings(max_length=most, tuning=tuning), tmp_path).base
        lengths.append(len(base.tokens(["a" * 100])[0]))
    assert lengths == [32, 16, 32] and bases.loads == 1


def test_a_base_that_does_not_fit_beside_another_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is counted before it is loaded, or memory runs out on the way."""
    bases = ModelCache()
    bases.get(settings(), tmp_path)
    load, calls = loading._weights, 0

    def full(*given: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise torch.OutOfMemoryError
        return load(*given)

    monkeypatch.setattr(loading, "_weights", full)
    bases.get(settings(model="tiny:qwen3"), tmp_path)
    assert calls == 2 and bases.loads == 2 and len(bases._models) == 1


@pytest.mark.parametrize(
    "change", [{"model": "tiny:qwen3"}, {"tuning": "full"}, {"dtype": "bfloat16"}, {"four_bit": True}]
)
def test_another_base_takes_its_place(tmp_path: Path, change: dict[str, object]) -> None:
    bases = ModelCache()
    first = bases.get(settings(), tmp_path)
    second = bases.get(settings(**change), tmp_path)
    assert second is not first and bases.loads == 2


def test_what_was_released_is_loaded_again_and_a_failure_leaves_none_behind(tmp_path: Path) -> None:
    bases = ModelCache()
    bases.release()
    bases.get(settings(), tmp_path)
    bases.release()
    bases.get(settings(), tmp_path)
    assert bases.loads == 2
    with pytest.raises(InputError):
        bases.get(settings(model="tiny:none"), tmp_path)
    assert bases.get(settings(), tmp_path).base.name == "tiny:gemma3" and bases.loads == 2


def test_a_model_that_cannot_be_had_is_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def nobody(*_: object) -> str:
        asked.append(1)
        raise InputError("no such model")

    monkeypatch.setattr(loading, "base_identity", nobody)
    bases = ModelCache()
    for _ in range(3):
        with pytest.raises(InputError, match="no such model"):
            bases.identity(settings(model="somebody/something"), tmp_path)
    assert len(asked) == 1
