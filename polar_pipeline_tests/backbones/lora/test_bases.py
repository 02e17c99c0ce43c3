"""A base is loaded once for as many backbones as differ only in how they train."""

from pathlib import Path

import pytest

from polar_pipeline.backbones.lora.bases import Bases
from polar_pipeline.errors import InputError
from polar_pipeline_tests.backbones.lora.examples import settings


def test_one_base_serves_backbones_that_load_the_same(tmp_path: Path) -> None:
    bases = Bases()
    first = bases.slot(settings(), tmp_path)
    assert bases.slot(settings(name="other", rank=8, learning_rate=0.1), tmp_path) is first
    first.fresh(1)
    assert any(value.shape == (8, 64) for value in first.parameters().values())  # as the last one wants it
    assert bases.loads == 1


@pytest.mark.parametrize(
    "change", [{"model": "tiny:qwen3"}, {"max_length": 16}, {"dtype": "bfloat16"}, {"four_bit": True}]
)
def test_another_base_takes_its_place(tmp_path: Path, change: dict[str, object]) -> None:
    bases = Bases()
    first = bases.slot(settings(), tmp_path)
    second = bases.slot(settings(**change), tmp_path)
    assert second is not first and bases.loads == 2
    assert second.base.max_length == settings(**change).max_length


def test_what_was_released_is_loaded_again_and_a_failure_leaves_none_behind(tmp_path: Path) -> None:
    bases = Bases()
    bases.release()
    bases.slot(settings(), tmp_path)
    bases.release()
    bases.slot(settings(), tmp_path)
    assert bases.loads == 2
    with pytest.raises(InputError):
        bases.slot(settings(model="tiny:none"), tmp_path)
    assert bases.slot(settings(), tmp_path).base.name == "tiny:gemma3" and bases.loads == 2
